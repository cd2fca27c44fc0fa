// The interface between the operator (torch, no CUDA code) and its kernels (CUDA, no torch).
#pragma once

#include <cuda_runtime_api.h>

#include "instance_deform_attn/instance_deform_attn.h"

namespace queryseg {

cudaError_t instance_deform_attn_forward_cuda(const InstanceInputs& inputs, void* output,
                                              cudaStream_t stream);

// Adds to the gradients, which are of the compute type.
cudaError_t instance_deform_attn_backward_cuda(const InstanceInputs& inputs,
                                               const void* grad_output, void* grad_feats,
                                               void* grad_weights, cudaStream_t stream);

}  // namespace queryseg
