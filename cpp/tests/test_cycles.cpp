#include <unistd.h>

#include <fstream>

#include "testing_bundle.hpp"

namespace pd = perceiver_deploy;

namespace {

// Bytes of memory that the process has now.
long resident() {
  long pages = 0, ignored = 0;
  std::ifstream("/proc/self/statm") >> ignored >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

void cycle() {
  const pd::Session session(testing_bundle::path(), testing_bundle::one_thread());
  const auto image = testing_bundle::pixels(1, 8, 8);
  session.run({{"pixel_values", image, {1, 3, 8, 8}}});
  try {
    session.run({});
  } catch (const pd::Error &) {
    return;
  }
  FAIL() << "no inputs were accepted";
}

}  // namespace

// A leak of one byte in a thousand of the model (0.3 MB and more) would show: 1,000 cycles may add 8 MB, which the
// allocator's own wandering stays below. PERCEIVER_DEPLOY_TEST_CYCLES asks for fewer where a sanitizer looks for leaks.
TEST(Session, does_not_leak_over_a_thousand_loads_runs_and_closes) {
  const char *given = std::getenv("PERCEIVER_DEPLOY_TEST_CYCLES");
  const int cycles = given == nullptr ? 1000 : std::atoi(given);
  for (int index = 0; index < cycles / 5; ++index)
    cycle();
  const long before = resident();
  for (int index = 0; index < cycles; ++index)
    cycle();
  if (given == nullptr) {
    EXPECT_LT(resident() - before, 8 << 20);
  }
}
