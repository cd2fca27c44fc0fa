// The CPU kernel of per-instance deformable attention: neighbouring pixels of a row in the lanes of
// a vector, everything between the map and the logits in registers or the first-level cache.
//
// The backward pass computes the forward pass again for each vector of pixels. Sizes that are
// template parameters are known to the compiler (SOIT's own); 0 stands for any size.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

// SOIT: 8 channels, 4 heads of 2, 4 points.
inline bool is_soit(const InstanceShape& shape) {
  return shape.channels == 8 && shape.heads == 4 && shape.points == 4;
}

void forward(const InstanceForward& args, int64_t first_row, int64_t last_row) {
  if (args.inputs.is_double) {
    return forward_rows<double, 0, 0, 0>(args, first_row, last_row);
  }
  if (is_soit(args.inputs.shape)) {
    return forward_rows<float, 8, 1, 4>(args, first_row, last_row);
  }
  return forward_rows<float, 0, 0, 0>(args, first_row, last_row);
}

void backward(const InstanceBackward& args, const InstanceRun& run) {
  if (args.inputs.is_double) {
    return backward_rows<double, 0, 0, 0>(args, run);
  }
  if (is_soit(args.inputs.shape)) {
    return backward_rows<float, 8, 1, 4>(args, run);
  }
  return backward_rows<float, 0, 0, 0>(args, run);
}

}  // namespace

const InstanceDeformAttnKernels kInstanceDeformAttn = {forward, backward};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
