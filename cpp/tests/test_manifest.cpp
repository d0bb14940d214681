#include "manifest.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "error.hpp"
#include "schema.hpp"
#include "schema_text.hpp"

namespace {

pd::Json valid_document() {
  return pd::Json::parse(R"({
    "schema_version": 1,
    "task": "masked_lm",
    "axes": {"batch": {"opt": 1}, "length": {"opt": 8, "max": 16}},
    "stages": {"full": {
      "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "length"], "minimum": 0, "maximum": 261}],
      "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", "length", 262]}]}},
    "variants": {"fp32": {"precision": "fp32", "for": ["onnxruntime"], "files": {"full": "onnx/fp32.onnx"}},
                 "int8": {"precision": "int8", "for": ["onnxruntime"], "files": {"full": "onnx/int8.onnx"}}},
    "labels": ["no", "yes"]})");
}

std::string refusal(const std::string &text) {
  try {
    pd::parse_manifest(text, "b", "b/bundle.json");
    return "";
  } catch (const pd::BundleError &error) {
    return error.what();
  }
}

}  // namespace

TEST(Manifest, has_what_running_needs) {
  const pd::Manifest manifest = pd::parse_manifest(valid_document().dump(), "b", "b/bundle.json");
  EXPECT_EQ(pd::names_text(manifest.variants), "fp32, int8");
  EXPECT_EQ(manifest.labels, (std::vector<std::string>{"no", "yes"}));
  const pd::TensorSpec &input = pd::find(manifest.stages, "full")->inputs.at(0);
  EXPECT_EQ(input.shape_text(), "[batch, length]");
  EXPECT_EQ(input.dtype, PD_INT64);
  EXPECT_EQ(input.minimum, 0);
  EXPECT_EQ(pd::find(manifest.axes, "length")->problem(17), "at most 16");
  EXPECT_EQ(pd::find(manifest.axes, "batch")->problem(1000), "");
}

TEST(Manifest, is_refused_with_a_path_that_leaves_the_bundle) {
  for (const char *path : {"../x", "/x", "a/../../x", "a\\b", "", ".", "./", "..", "a/.."}) {
    pd::Json document = valid_document();
    document["variants"]["fp32"]["files"]["full"] = path;
    EXPECT_NE(refusal(document.dump()).find("leaves the bundle"), std::string::npos) << path;
  }
  for (const char *path : {"a", "a/b", "./a", "...", "a..b/..c"}) {
    pd::Json document = valid_document();
    document["variants"]["fp32"]["files"]["full"] = path;
    EXPECT_EQ(refusal(document.dump()), "") << path;
  }
  pd::Json document = valid_document();
  document["variants"]["fp32"]["files"]["full"] = std::string("a\0b", 3);
  EXPECT_NE(refusal(document.dump()).find("leaves the bundle"), std::string::npos);
}

TEST(Manifest, is_refused_with_an_expression_that_cannot_be_read) {
  pd::Json document = valid_document();
  document["stages"]["full"]["inputs"][0]["maximum"] = "length+1";
  EXPECT_NE(refusal(document.dump()).find("is not an expression of axes"), std::string::npos);
}

TEST(Manifest, is_refused_with_numbers_beyond_64_bits) {
  std::string text = valid_document().dump();
  text.replace(text.find("\"max\":16"), 8, "\"max\":18446744073709551615");
  EXPECT_NE(refusal(text).find("axes.length.max: Input should be an integer of 64 bits"), std::string::npos);
}

TEST(Manifest, is_read_however_deep_what_it_does_not_use_is_nested) {
  std::string text = valid_document().dump();
  text.back() = ',';
  EXPECT_EQ(refusal(text + "\"provenance\":{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}}"), "");
  EXPECT_NE(refusal(std::string(1000000, '[')).find("is not JSON"), std::string::npos);
}

// schema.cpp checks digests by hand: no regular expressions on what is not to be trusted.
TEST(Schema, has_no_pattern_but_that_of_digests) {
  const std::string schema = pd::kSchemaText;
  const std::string pattern = R"("pattern": "^[0-9a-f]{64}$")";
  const std::size_t first = schema.find("\"pattern\"");
  EXPECT_EQ(schema.compare(first, pattern.size(), pattern), 0);
  EXPECT_EQ(schema.find("\"pattern\"", first + 1), std::string::npos);
}

// schema.cpp knows the keywords that the schema has, and the build would go on without a word about others.
TEST(Schema, has_no_keywords_that_are_not_checked) {
  const std::set<std::string> known = {
      "$defs",         "$ref",    "additionalProperties", "anyOf",      "const",         "default",  "description",
      "discriminator", "enum",    "exclusiveMinimum",     "items",      "maxItems",      "minItems", "minimum",
      "oneOf",         "pattern", "prefixItems",          "properties", "propertyNames", "required", "title",
      "type"};
  const std::function<void(const pd::Json &)> visit = [&](const pd::Json &schema) {
    for (const auto &[name, value] : schema.items()) {
      EXPECT_EQ(known.count(name), 1u) << name;
      if (name == "$defs" || name == "properties") {
        for (const auto &[key, inner] : value.items())
          visit(inner);
      } else if (name == "anyOf" || name == "oneOf" || name == "prefixItems") {
        for (const pd::Json &inner : value)
          visit(inner);
      } else if (value.is_object() && name != "discriminator") {
        visit(value);
      }
    }
  };
  visit(pd::Json::parse(pd::kSchemaText));
}
