// Sparse RoIAlign at the nodes of a quadtree (Ke et al., "Mask Transfiner", section 3.3): what the
// CPU and CUDA kernels agree on.
//
//   output[t, :] = mean over the cell's samples of bilinear(map, sample)
//
// is the value that RoIAlign (aligned, with samples as Detectron2 places them) has in one cell. A
// cell is a row and a column of the grid that a level lays over the instance's box. A sample more
// than one pixel off the map is zero; nearer ones repeat the border.
#pragma once

#include <cstdint>
#include <vector>

#include "common/value_type.h"

namespace queryseg {
namespace quadtree {

struct MapSize {
  int64_t height;
  int64_t width;
};

// Letters as in the Python wrapper: B, C, N, G, T.
struct GatherShape {
  int64_t images;
  int64_t channels;
  int64_t instances;
  int64_t levels;  // grids of each instance
  int64_t nodes;
  std::vector<MapSize> maps;
};

// Where the nodes lie. `windows` is of the compute type: double for double values, else float.
struct NodeInputs {
  const void* windows;   // (N, G, 4): top, left, height and width of a cell, in pixels of the map
  const int64_t* bins;   // (N, G, 4): image, map, sample rows and sample columns of a cell
  const int64_t* index;  // (T, 3): instance, row, column
  const int64_t* level;  // (T,)
};

struct ForwardArgs {
  GatherShape shape;
  ValueType type;
  NodeInputs nodes;
  std::vector<const void*> maps;  // each (B, H, W, C)
  void* output;                   // (T, C)
};

struct BackwardArgs {
  GatherShape shape;
  ValueType type;  // of grad_output
  NodeInputs nodes;
  const void* grad_output;       // (T, C)
  std::vector<void*> grad_maps;  // each (B, H, W, C), compute type, zero-filled
};

}  // namespace quadtree
}  // namespace queryseg
