// The number types that operators take values in. Free of torch.
#pragma once

namespace queryseg {

enum class ValueType { kFloat, kDouble, kHalf, kBFloat16 };

}  // namespace queryseg
