// Without libFuzzer: documents come from standard input, each after its length in eight bytes, the lowest first. Prints
// how many there were.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

int main() {
  std::size_t documents = 0;
  std::array<std::uint8_t, 8> length{};
  while (std::fread(length.data(), 1, length.size(), stdin) == length.size()) {
    std::uint64_t size = 0;
    for (std::size_t index = length.size(); index-- > 0;)
      size = size << 8 | length[index];
    std::vector<std::uint8_t> document(size);
    if (std::fread(document.data(), 1, document.size(), stdin) != document.size()) return 1;
    LLVMFuzzerTestOneInput(document.data(), document.size());
    ++documents;
  }
  std::printf("%zu\n", documents);
  return 0;
}
