// That the texts are Python's is tested from Python; here is what only a program with pointers can do wrong.
#include "inputs.hpp"

#include <gtest/gtest.h>

#include "error.hpp"

namespace {

class Inputs : public testing::Test {
 protected:
  std::string refusal(const std::vector<pd_tensor> &inputs) const {
    try {
      pd::check_inputs({inputs.data(), inputs.size()}, specs_, axes_);
      return "";
    } catch (const pd::InputError &error) {
      return error.what();
    }
  }

  std::vector<std::int64_t> ids_ = {0, 1, 2, 3};
  std::vector<std::int64_t> shape_ = {1, 4};
  pd_tensor tensor_ = {"input_ids", PD_INT64, shape_.data(), 2, ids_.data(), 32};
  pd::Named<pd::Axis> axes_ = {{"batch", {1, 1, {}, 1}}, {"length", {1, 4, {}, 1}}};
  std::vector<pd::TensorSpec> specs_ = {
      {"input_ids", PD_INT64, {pd::Size("batch"), pd::Size("length")}, 0, pd::Size("length-1")}};
};

}  // namespace

TEST_F(Inputs, that_fit_are_accepted_and_give_the_sizes_of_the_axes) {
  const pd::Sizes sizes = pd::check_inputs({&tensor_, 1}, specs_, axes_);
  EXPECT_EQ(sizes, (pd::Sizes{{"batch", 1}, {"length", 4}}));
}

TEST_F(Inputs, given_twice_are_refused) {
  EXPECT_EQ(refusal({tensor_, tensor_}), "Input 'input_ids' is given twice.");
}

TEST_F(Inputs, in_memory_that_is_too_small_are_refused) {
  tensor_.bytes = 31;
  EXPECT_EQ(
      refusal({tensor_}),
      "'input_ids' has shape [1, 4] of int64, and its memory has 31 bytes. Give memory that holds the whole array.");
  tensor_.bytes = 32;
  tensor_.data = nullptr;
  EXPECT_NE(refusal({tensor_}).find("its memory has 0 bytes"), std::string::npos);
}

TEST_F(Inputs, of_more_bytes_than_there_are_numbers_for_are_refused) {
  shape_ = {std::int64_t{1} << 40, std::int64_t{1} << 40};
  EXPECT_NE(refusal({tensor_}).find("its memory has 32 bytes"), std::string::npos);
}

TEST_F(Inputs, of_a_dtype_that_there_is_not_are_refused) {
  tensor_.dtype = 77;
  EXPECT_NE(refusal({tensor_}).find("has dtype number 77; expected int64"), std::string::npos);
}

TEST_F(Inputs, whose_values_depend_on_a_size_are_held_to_it) {
  ids_[2] = 4;
  EXPECT_NE(refusal({tensor_}).find("holds the value 4; expected at most 3"), std::string::npos);
}
