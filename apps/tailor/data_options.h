#pragma once
/// What the verbs that start a run have in common: the options that name the data, and where the run stands.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/result.h"
#include "fit/options.h"

namespace tailor {

/// Words that still have to be checked.
struct DataWords {
  std::string delimiter, max_text_bytes;
};

void add_data_options(CLI::App& verb, DataOptions& options, DataWords& words);
Status finish_data_options(DataWords& words, DataOptions& options);
/// Text and label columns must be named.
Status require_columns(std::string_view verb, const DataOptions& options);

/// runs/NAME, or runs/NAME-2 …, whatever is not there yet.
std::filesystem::path unused_run_directory(const std::string& name);
/// An interruption says how to go on where there is something to go on with.
Error explain_interruption(Error error, std::string_view verb, const std::filesystem::path& run);

}  // namespace tailor
