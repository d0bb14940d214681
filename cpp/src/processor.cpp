#include "processor.hpp"

#include <sys/utsname.h>

#include <fstream>
#include <string_view>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "text.hpp"

namespace pd {
namespace {

std::string model_name() {
  constexpr std::string_view kKey = "model name", kSpaces = " \t\r";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, kKey.size(), kKey) != 0) continue;
    const std::size_t start = line.find_first_not_of(kSpaces, line.find(':') + 1);
    if (start == std::string::npos) break;
    return line.substr(start, line.find_last_not_of(kSpaces) + 1 - start);
  }
  utsname system{};
  return ::uname(&system) == 0 ? system.machine : "";
}

#if defined(__x86_64__) || defined(__i386__)
bool has_int8_products() {
  return __builtin_cpu_supports("avx512vnni") || __builtin_cpu_supports("avxvnni");
}
#elif defined(__aarch64__) && defined(__linux__)
bool has_int8_products() {
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;  // what has I8MM has these too
}
#else
bool has_int8_products() {
  return true;  // nothing says that it has not
}
#endif

// " (AVX2, no INT8 dot products)": the widest vectors, and whether products of INT8 are summed in 32 bits.
std::string features() {
  const char *vectors = "";
#if defined(__x86_64__) || defined(__i386__)
  if (__builtin_cpu_supports("sse4.2")) vectors = "SSE4.2, ";
  if (__builtin_cpu_supports("avx2")) vectors = "AVX2, ";
  if (__builtin_cpu_supports("avx512f")) vectors = "AVX-512, ";
#elif defined(__aarch64__) && defined(__linux__)
  vectors = (getauxval(AT_HWCAP) & HWCAP_SVE) != 0 ? "SVE, " : "NEON, ";
#else
  return "";  // nothing says what it can do
#endif
  return concat(" (", vectors, has_int8_products() ? "" : "no ", "INT8 dot products)");
}

}  // namespace

const std::string &processor_kind() {
  static const std::string &kind = *new std::string(model_name() + features());
  return kind;
}

bool lacks_int8_products() {
  return !has_int8_products();
}

}  // namespace pd
