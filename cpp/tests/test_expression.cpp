#include <gtest/gtest.h>

#include <limits>

#include "error.hpp"
#include "expression.hpp"

using pd::Size;

TEST(Size, evaluates_products_whole_divisions_and_a_subtraction) {
  const pd::Sizes sizes = {{"samples", 70}, {"queries_audio", 5}, {"frames", 2},
                           {"height", 3},   {"width", 4},         {"clip_size[3]", 9}};
  EXPECT_EQ(Size(7).evaluate(sizes), 7);
  EXPECT_EQ(Size("12").evaluate(sizes), 12);
  EXPECT_EQ(Size("samples").evaluate(sizes), 70);
  EXPECT_EQ(Size("samples/16").evaluate(sizes), 4);
  EXPECT_EQ(Size("16*queries_audio").evaluate(sizes), 80);
  EXPECT_EQ(Size("frames*height*width-1").evaluate(sizes), 23);
  EXPECT_EQ(Size("samples/16-1").evaluate(sizes), 3);
  EXPECT_EQ(Size("clip_size[3]-1").evaluate(sizes), 8);
}

TEST(Size, knows_numbers_from_names) {
  EXPECT_TRUE(Size(3).is_number());
  EXPECT_TRUE(Size("3").is_number());
  EXPECT_FALSE(Size("batch").is_number());
  EXPECT_FALSE(Size("samples/16").is_number());
  EXPECT_EQ(Size("frames*clip_size[3]/4").axes(), (std::vector<std::string>{"frames", "clip_size"}));
}

TEST(Size, refuses_text_that_is_no_expression) {
  for (const char *text : {"", "*", "a*", "*a", "a**b", "a+b", "a-", "a-b", "a[", "a[]x", "a[1", "3x", "a b", "(a)",
                           "-1", "99999999999999999999", "a-99999999999999999999"}) {
    EXPECT_THROW(Size{std::string(text)}, pd::BundleError) << text;
  }
}

TEST(Size, refuses_what_cannot_be_computed) {
  const auto most = std::numeric_limits<std::int64_t>::max();
  EXPECT_THROW(Size("absent").evaluate({}), pd::BundleError);
  EXPECT_THROW(Size("a/b").evaluate({{"a", 1}, {"b", 0}}), pd::BundleError);
  EXPECT_THROW(Size("a*a").evaluate({{"a", most}}), pd::BundleError);
  EXPECT_EQ(Size("a*1").evaluate({{"a", most}}), most);
}
