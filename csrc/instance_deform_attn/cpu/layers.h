// Where the layers of an instance lie.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

// The layers of one instance; pointers to its weights or to sums of their gradients.
template <typename E>
struct Layers {
  E* offset_weight;
  E* offset_bias;
  E* attn_weight;
  E* attn_bias;
  E* out_weight;
  E* out_bias;

  Layers(E* start, const LayerOffsets& at)
      : offset_weight(start),
        offset_bias(start + at.offset_bias),
        attn_weight(start + at.attn_weight),
        attn_bias(start + at.attn_bias),
        out_weight(start + at.out_weight),
        out_bias(start + at.out_bias) {}
};

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
