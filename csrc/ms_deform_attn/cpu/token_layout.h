// Where the tokens of a head lie.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {

// Offsets in an array of tokens: the given value, or the packed tokens of some heads.
struct TokenLayout {
  int64_t token_step;
  int64_t head_step;
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
