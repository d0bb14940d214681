#include "output_check.hpp"

#include <gtest/gtest.h>

namespace {

const pd::TensorSpec kSpec{"answers", PD_FLOAT32, {pd::Size("batch"), pd::Size("2*queries"), pd::Size(3)}, {}, {}};
const pd::Sizes kSizes = {{"batch", 2}, {"queries", 4}};
const std::string kRemedy =
    "This runtime does not compute this graph as it is written: use another runtime, or another version of it.";

std::string refusal(const std::vector<std::int64_t> &shape, const pd::Sizes &sizes) {
  try {
    pd::check_shape("onnxruntime", kSpec, shape, sizes);
    return "";
  } catch (const pd::ParityError &error) {
    EXPECT_EQ(error.status(), PD_PARITY);
    EXPECT_STREQ(error.family(), "ParityError");
    return error.what();
  }
}

}  // namespace

TEST(OutputCheck, accepts_what_follows_from_the_inputs) {
  EXPECT_EQ(refusal({2, 8, 3}, kSizes), "");
}

TEST(OutputCheck, refuses_another_size_or_rank) {
  for (const std::vector<std::int64_t> &shape :
       {std::vector<std::int64_t>{2, 8, 4}, {2, 9, 3}, {1, 8, 3}, {2, 8}, {2, 8, 3, 1}, {}}) {
    const std::string said = refusal(shape, kSizes);
    EXPECT_NE(said.find("; the manifest says [batch, 2*queries, 3] = [2, 8, 3]. " + kRemedy), std::string::npos) << said;
  }
  EXPECT_EQ(refusal({2, 8}, kSizes).rfind("onnxruntime gives output 'answers' with shape [2, 8]; ", 0), 0u);
}

TEST(OutputCheck, holds_what_the_inputs_do_not_say_to_its_rank_alone) {
  const pd::Sizes sizes = {{"batch", 2}};
  EXPECT_EQ(refusal({2, 5, 3}, sizes), "");
  EXPECT_EQ(refusal({2, 5}, sizes),
            "onnxruntime gives output 'answers' with shape [2, 5]; the manifest says [batch, 2*queries, 3]. " + kRemedy);
  EXPECT_NE(refusal({3, 5, 3}, sizes), "");
}

TEST(OutputCheck, names_both_dtypes) {
  EXPECT_EQ(pd::wrong_dtype("tensorrt", kSpec, "float16").what(),
            "tensorrt gives output 'answers' in float16; the manifest says float32. " + kRemedy);
}
