#pragma once
/// Which instructions the kernels of this module may use: what the processor has, at most what TAILOR_MAX_ISA names
/// ("portable", "avx2", "avx512", "vnni"). The variable is for measurements and for finding faults; llama.cpp chooses
/// its own kernels for itself. Read once; safe from any thread.

#include <optional>
#include <string_view>

namespace tailor {

enum class InstructionSet { kPortable, kAvx2, kAvx512, kVnni };  // each has what stands before it

/// AVX2 with FMA and F16C; AVX-512 F, BW, DQ and VL; these and VNNI.
bool runs(InstructionSet set);

/// Of a name in TAILOR_MAX_ISA. No value: unknown.
std::optional<InstructionSet> instruction_set(std::string_view name);
/// What is used where the variable is `named` (null: not set). A name that is not known limits nothing.
InstructionSet used(InstructionSet processor, const char* named);

}  // namespace tailor
