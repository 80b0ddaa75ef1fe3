#include "infer/processor.h"

#include <algorithm>
#include <cstdlib>

namespace tailor {
namespace {

InstructionSet of_this_processor() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return InstructionSet::kPortable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return InstructionSet::kAvx2;
  return __builtin_cpu_supports("avx512vnni") ? InstructionSet::kVnni : InstructionSet::kAvx512;
#else
  return InstructionSet::kPortable;
#endif
}

}  // namespace

std::optional<InstructionSet> instruction_set(std::string_view name) {
  if (name == "portable") return InstructionSet::kPortable;
  if (name == "avx2") return InstructionSet::kAvx2;
  if (name == "avx512") return InstructionSet::kAvx512;
  if (name == "vnni") return InstructionSet::kVnni;
  return std::nullopt;
}

InstructionSet used(InstructionSet processor, const char* named) {
  return named == nullptr ? processor : std::min(processor, instruction_set(named).value_or(processor));
}

bool runs(InstructionSet set) {
  static const InstructionSet most = used(of_this_processor(), std::getenv("TAILOR_MAX_ISA"));
  return set <= most;
}

}  // namespace tailor
