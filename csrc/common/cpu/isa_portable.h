#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/cpu/isa.h"
#include "common/cpu/scratch.h"
#include "common/numeric.h"

#define QUERYSEG_ISA portable
#define QUERYSEG_VEC_BITS 128
