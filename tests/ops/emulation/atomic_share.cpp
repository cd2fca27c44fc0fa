// Where the lanes of a group add, for ctypes.

#include "cuda_emulation.h"
// What is tested comes after the words it is written in.
#include "common/cuda/device.h"

using namespace queryseg::device;

template <int N, int kGroup>
static int write_channels(int* to) {
  using Share = AtomicShare<float, N, kGroup, true>;
  for (int piece = 0; piece < Share::kPieces; ++piece) {
    for (int lane = 0; lane < kGroup; ++lane) {
      for (int i = 0; i < Share::kPiece; ++i) {
        *to++ = Share{lane, kGroup * N}.channel(piece) + i;
      }
    }
  }
  return kGroup * Share::kPiece;
}

// to: N * group channels, addition by addition; returns the channels of one addition.
extern "C" int channels_of_group(int values, int group, int* to) {
  if (group == 4) {
    return values == 4 ? write_channels<4, 4>(to) : write_channels<8, 4>(to);
  }
  if (group == 8) {
    return values == 4 ? write_channels<4, 8>(to) : write_channels<8, 8>(to);
  }
  return values == 4 ? write_channels<4, 32>(to) : write_channels<8, 32>(to);
}
