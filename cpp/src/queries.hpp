// What the stage `decoder` takes, beside the latents, to answer all that the stage `full` answers. As `all_queries` in
// perceiver_deploy/runtimes/stages/queries.py.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "inputs.hpp"

namespace pd {

// Tensors, and the memory of those that were made.
struct Queries {
  std::vector<pd_tensor> tensors;
  std::deque<std::vector<std::int64_t>> values;
  std::deque<std::int64_t> lengths;
};

// `inputs` are those of `full`, checked, and `sizes` theirs. Throws UsageError where the decoder takes something that
// they do not say.
Queries all_queries(const Stage &decoder, const Stage &full, const Tensors &inputs, const Sizes &sizes);

}  // namespace pd
