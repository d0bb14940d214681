// The processor, as far as results of integer arithmetic depend on it. As perceiver_deploy/machine.py.
#pragma once

#include <string>

namespace pd {

// Its model and what its numbers in INT8 depend on, asked of the processor itself: "AMD EPYC (AVX2, no INT8 dot
// products)".
const std::string &processor_kind();

// Whether it is known to have no instruction that sums products of INT8 in 32 bits.
bool lacks_int8_products();

}  // namespace pd
