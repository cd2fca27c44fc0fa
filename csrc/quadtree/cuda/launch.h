// The interface between the operator (torch, no CUDA code) and its kernels (CUDA, no torch).
#pragma once

#include <cuda_runtime_api.h>

#include "quadtree/quadtree.h"

namespace queryseg {

constexpr int64_t kMostMapsOnCuda = 16;

cudaError_t quadtree_gather_cuda(const quadtree::ForwardArgs& args, cudaStream_t stream);
cudaError_t quadtree_gather_backward_cuda(const quadtree::BackwardArgs& args, cudaStream_t stream);

}  // namespace queryseg
