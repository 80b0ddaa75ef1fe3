#pragma once
/// `tailor-tune` as `tailor` sees it: a program that may or may not be there.

#include <filesystem>

namespace tailor {

/// $TAILOR_TUNE, or tailor-tune beside the running program; empty where there is none.
std::filesystem::path find_tune_program();

}  // namespace tailor
