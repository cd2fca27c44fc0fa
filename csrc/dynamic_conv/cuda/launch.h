// The interface between the operator (torch, no CUDA code) and its kernels (CUDA, no torch).
#pragma once

#include <cuda_runtime_api.h>

#include "dynamic_conv/dynamic_conv.h"

namespace queryseg {
namespace dynamic_conv {

// Whether even a single position of an instance fits the shared memory of every supported device.
bool fits_cuda(const Inputs& inputs);

// Bytes of memory that the backward pass needs beside its arguments.
int64_t cuda_scratch_bytes(const Inputs& inputs);

cudaError_t forward_cuda(const Forward& call, cudaStream_t stream);
cudaError_t backward_cuda(const Backward& call, void* scratch, cudaStream_t stream);

}  // namespace dynamic_conv
}  // namespace queryseg
