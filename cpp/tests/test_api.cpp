#include "testing_bundle.hpp"

namespace pd = perceiver_deploy;
using testing_bundle::one_thread;
using testing_bundle::pixels;

namespace {

// Without a bundle no test begins: threads of theirs would end the program before it can say why.
class BundleIsGiven : public testing::Environment {
  void SetUp() override { testing_bundle::path(); }
};
const auto *const kBundleIsGiven = testing::AddGlobalTestEnvironment(new BundleIsGiven);

}  // namespace

TEST(Session, says_what_it_takes_gives_and_runs_on) {
  const pd::Session session(testing_bundle::path());
  EXPECT_EQ(pd_abi_version(), PD_ABI_VERSION);
  EXPECT_EQ(session.runtime(), "onnxruntime");
  EXPECT_EQ(session.device(), "cpu");
  EXPECT_EQ(session.variant(), "fp32");
  ASSERT_EQ(session.inputs().size(), 1u);
  EXPECT_EQ(session.inputs()[0].name, "pixel_values");
  EXPECT_EQ(session.inputs()[0].shape, (std::vector<std::string>{"batch", "3", "height", "width"}));
  EXPECT_EQ(session.outputs()[0].name, "logits");
  EXPECT_EQ(session.axis("batch").minimum, 1);
  EXPECT_TRUE(session.has_stage("full"));
  EXPECT_FALSE(session.has_stage("encoder"));
  EXPECT_NE(session.manifest().find("\"task\": \"image_classification\""), std::string::npos);
}

TEST(Session, gives_the_same_numbers_into_the_callers_memory) {
  const pd::Session session(testing_bundle::path(), one_thread());
  const auto image = pixels(2, 8, 8);
  const pd::Tensors inputs = {{"pixel_values", image, {2, 3, 8, 8}}};
  const pd::Outputs outputs = session.run(inputs);
  const auto expected = outputs["logits"].values<float>();
  const pd::Shape shape = session.output_shape(inputs, "logits");
  EXPECT_EQ(outputs["logits"].shape(), shape);
  std::vector<float> memory(expected.size(), -1.0f);
  session.run_into(inputs, {{"logits", memory, shape}});
  EXPECT_TRUE(std::equal(memory.begin(), memory.end(), expected.begin(), expected.end()));
  EXPECT_NE(memory[0], memory[1]);
}

TEST(Session, says_whether_it_gives_its_own_numbers_and_finds_it_anew) {
  pd::Options options = one_thread();
  options.allow_nonconforming = true;
  const pd::Session session(testing_bundle::path(), options);
  EXPECT_EQ(session.conformance(), "conforms");
  session.check_conformance();
  EXPECT_EQ(session.conformance(), "conforms");
}

TEST(Session, refuses_memory_for_outputs_that_does_not_fit) {
  const pd::Session session(testing_bundle::path());
  const auto image = pixels(1, 8, 8);
  const pd::Tensors inputs = {{"pixel_values", image, {1, 3, 8, 8}}};
  const pd::Shape shape = session.output_shape(inputs, "logits");
  std::vector<float> memory(static_cast<std::size_t>(shape[1]));
  std::vector<double> doubles(memory.size());
  EXPECT_THROW(session.run_into(inputs, {{"logit", memory, shape}}), pd::Error);
  EXPECT_THROW(session.run_into(inputs, {{"logits", doubles, shape}}), pd::Error);
  EXPECT_THROW(session.run_into(inputs, {{"logits", memory, {2, shape[1]}}}), pd::Error);
  EXPECT_THROW(session.run_into(inputs, {{"logits", memory.data(), memory.size() - 1, shape}}), pd::Error);
  EXPECT_THROW(session.run_into(inputs, {{"logits", memory, shape}, {"logits", memory, shape}}), pd::Error);
  session.run_into(inputs, {{"logits", memory, shape}});
}

TEST(Session, keeps_outputs_that_outlive_it) {
  const auto image = pixels(1, 8, 8);
  std::optional<pd::Session> session(testing_bundle::path());
  const pd::Outputs outputs = session->run({{"pixel_values", image, {1, 3, 8, 8}}});
  const auto logits = outputs["logits"].values<float>();
  const std::vector<float> before(logits.begin(), logits.end());
  session.reset();
  EXPECT_TRUE(std::equal(before.begin(), before.end(), logits.begin()));
  EXPECT_THROW(outputs["logits"].values<double>(), pd::Error);
  EXPECT_THROW(outputs["other"], pd::Error);
}

TEST(Session, can_be_moved_and_closed_twice_and_then_says_that_it_is_closed) {
  pd::Session first(testing_bundle::path());
  pd::Session second(std::move(first));
  const auto image = pixels(1, 8, 8);
  const pd::Tensors inputs = {{"pixel_values", image, {1, 3, 8, 8}}};
  EXPECT_EQ(second.run(inputs).tensors().size(), 1u);
  second.close();
  second.close();
  try {
    second.run(inputs);
    FAIL();
  } catch (const pd::Error &error) {
    EXPECT_STREQ(error.what(), "This onnxruntime session is closed. Load the bundle again to run it.");
    EXPECT_EQ(error.status(), PD_ERROR);
  }
}

TEST(Abi, refuses_null_arguments_and_accepts_them_where_it_frees) {
  pd_session *session = nullptr;
  pd_options *options = nullptr;
  pd_outputs *outputs = nullptr;
  pd_tensor tensor = {};
  size_t count = 0;
  EXPECT_EQ(pd_options_new(nullptr), PD_USAGE);
  EXPECT_EQ(pd_options_set(nullptr, "threads", "1"), PD_USAGE);
  EXPECT_EQ(pd_session_open(nullptr, nullptr, &session), PD_USAGE);
  EXPECT_EQ(pd_session_open("x", nullptr, nullptr), PD_USAGE);
  EXPECT_EQ(pd_session_run(nullptr, nullptr, nullptr, 0, &outputs), PD_USAGE);
  EXPECT_EQ(pd_session_count(nullptr, nullptr, PD_INPUT, &count), PD_USAGE);
  EXPECT_EQ(pd_outputs_get(nullptr, 0, &tensor), PD_USAGE);
  EXPECT_STREQ(pd_last_error(), "The argument outputs is NULL; expected an object.");
  EXPECT_STREQ(pd_last_error_family(), "UsageError");
  EXPECT_EQ(pd_session_runtime(nullptr), nullptr);
  EXPECT_EQ(pd_session_conformance(nullptr), nullptr);
  EXPECT_EQ(pd_session_check(nullptr), PD_USAGE);
  EXPECT_EQ(pd_session_label(nullptr, 0), nullptr);
  EXPECT_EQ(pd_outputs_count(nullptr), 0u);
  pd_session_close(&session);
  pd_session_close(nullptr);
  pd_options_free(&options);
  pd_outputs_free(&outputs);
}

TEST(Abi, refuses_null_inside_of_tensors) {
  pd_session *session = nullptr;
  pd_outputs *outputs = nullptr;
  ASSERT_EQ(pd_session_open(testing_bundle::path().c_str(), nullptr, &session), PD_OK) << pd_last_error();
  const int64_t shape[4] = {1, 3, 8, 8};
  const auto image = pixels(1, 8, 8);
  const pd_tensor good = {"pixel_values", PD_FLOAT32, shape, 4, const_cast<float *>(image.data()), image.size() * 4};
  pd_tensor bad = good;
  EXPECT_EQ(pd_session_run(session, nullptr, nullptr, 1, &outputs), PD_USAGE);
  bad.name = nullptr;
  EXPECT_EQ(pd_session_run(session, nullptr, &bad, 1, &outputs), PD_USAGE);
  bad = good;
  bad.shape = nullptr;
  EXPECT_EQ(pd_session_run(session, nullptr, &bad, 1, &outputs), PD_USAGE);
  bad = good;
  bad.data = nullptr;
  EXPECT_EQ(pd_session_run(session, nullptr, &bad, 1, &outputs), PD_ERROR);
  EXPECT_EQ(pd_session_run(session, nullptr, &good, 1, nullptr), PD_USAGE);
  EXPECT_EQ(pd_session_run(session, nullptr, &good, 1, &outputs), PD_OK) << pd_last_error();
  EXPECT_STREQ(pd_last_error(), "");
  pd_outputs_free(&outputs);
  pd_outputs_free(&outputs);
  pd_session_close(&session);
  pd_session_close(&session);
}
