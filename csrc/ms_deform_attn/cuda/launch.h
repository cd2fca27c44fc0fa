// The interface between the operator (torch, no CUDA code) and its kernels (CUDA, no torch).
#pragma once

#include <cuda_runtime_api.h>

#include "ms_deform_attn/ms_deform_attn.h"

namespace queryseg {

constexpr int64_t kMostLevelsOnCuda = 64;

// BackwardArgs::grad_value is of the compute type here, and zero-filled. So are the gradients of
// the reference points, (B, Q, L, K); those of the logits are of the compute type.
cudaError_t ms_deform_attn_forward_cuda(const ForwardArgs& args, cudaStream_t stream);
cudaError_t ms_deform_attn_backward_cuda(const BackwardArgs& args, cudaStream_t stream);
cudaError_t ms_deform_attn_fused_forward_cuda(const ForwardArgs& args, cudaStream_t stream);
cudaError_t ms_deform_attn_fused_backward_cuda(const BackwardArgs& args, cudaStream_t stream);

}  // namespace queryseg
