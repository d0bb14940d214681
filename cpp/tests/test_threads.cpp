#include <thread>

#include "testing_bundle.hpp"

namespace pd = perceiver_deploy;

TEST(Session, gives_every_thread_the_numbers_of_one) {
  const pd::Session session(testing_bundle::path(), testing_bundle::one_thread());
  const auto run = [&](int seed) {
    const auto image = testing_bundle::pixels(1, 6 + seed, 8, seed);
    const pd::Outputs outputs = session.run({{"pixel_values", image, {1, 3, 6 + seed, 8}}});
    const auto logits = outputs["logits"].values<float>();
    return std::vector<float>(logits.begin(), logits.end());
  };
  constexpr int kThreads = 4;
  std::vector<std::vector<float>> expected;
  for (int seed = 0; seed < kThreads; ++seed)
    expected.push_back(run(seed));
  std::vector<int> different(kThreads, 0);
  std::vector<std::thread> threads;
  for (int seed = 0; seed < kThreads; ++seed) {
    threads.emplace_back([&, seed] {
      for (int repeat = 0; repeat < 25; ++repeat)
        different[static_cast<std::size_t>(seed)] += run(seed) != expected[static_cast<std::size_t>(seed)];
    });
  }
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(different, std::vector<int>(kThreads, 0));
}

TEST(Session, is_checked_by_several_threads_while_others_run_it) {
  const pd::Session session(testing_bundle::path(), testing_bundle::one_thread());
  const auto image = testing_bundle::pixels(1, 8, 8);
  std::vector<std::string> found(4);
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < found.size(); ++index) {
    threads.emplace_back([&, index] {
      for (int repeat = 0; repeat < 5; ++repeat) {
        if (index % 2 == 0) session.check_conformance();
        session.run({{"pixel_values", image, {1, 3, 8, 8}}});
        found[index] = session.conformance();
      }
    });
  }
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(found, std::vector<std::string>(4, "conforms"));
}

TEST(Session, can_be_opened_and_closed_by_several_threads_each_with_its_own_last_error) {
  std::vector<std::string> messages(4);
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < messages.size(); ++index) {
    threads.emplace_back([&, index] {
      const pd::Session session(testing_bundle::path(), testing_bundle::one_thread());
      try {
        session.axis("axis" + std::to_string(index));
      } catch (const pd::Error &error) {
        messages[index] = error.what();
      }
    });
  }
  for (std::thread &thread : threads)
    thread.join();
  for (std::size_t index = 0; index < messages.size(); ++index) {
    EXPECT_EQ(messages[index].rfind("There is no axis 'axis" + std::to_string(index) + "'", 0), 0u) << messages[index];
  }
}
