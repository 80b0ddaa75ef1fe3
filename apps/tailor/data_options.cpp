#include "apps/tailor/data_options.h"

#include <fmt/format.h>

#include "apps/tailor/arguments.h"

namespace tailor {

void add_data_options(CLI::App& verb, DataOptions& options, DataWords& words) {
  verb.add_option("--text", options.text_columns, "column with the text; may be given several times")
      ->type_name("COLUMN");
  verb.add_option("--template", options.text_template, "how several columns make one text: \"{subject}: {body}\"")
      ->type_name("TEXT");
  verb.add_option("--label", options.label_column, "column with the label")->type_name("COLUMN");
  verb.add_option("--validation", options.validation_file, "a file with the validation part (otherwise split off)")
      ->type_name("CSV");
  verb.add_option("--test", options.test_file, "a file with the test part (otherwise split off)")->type_name("CSV");
  verb.add_option("--validation-fraction", options.validation_fraction, "share of the rows for validation, 0.01 to 0.9")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 0.9).description(""))
      ->type_name("SHARE");
  verb.add_option("--test-fraction", options.test_fraction, "share of the rows for the test part, 0.01 to 0.9")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 0.9).description(""))
      ->type_name("SHARE");
  verb.add_option("--encoding", options.encoding, "encoding of the files when not UTF-8, such as windows-1252")
      ->type_name("NAME");
  verb.add_option("--delimiter", words.delimiter, "column delimiter when it is not found out: \",\" \";\" \"|\" or tab")
      ->type_name("CHAR");
  verb.add_option("--max-text-bytes", words.max_text_bytes, "longest text that is accepted (1MiB)")->type_name("SIZE");
  verb.add_option("--seed", options.seed, "seed of everything random")->capture_default_str();
}

Status finish_data_options(DataWords& words, DataOptions& options) {
  if (!words.max_text_bytes.empty()) {
    TAILOR_TRY(options.max_text_bytes, parse_bytes(words.max_text_bytes));
  }
  if (!words.delimiter.empty()) {
    if (words.delimiter == "tab" || words.delimiter == "\\t") words.delimiter = "\t";
    if (words.delimiter.size() != 1)
      return Error{ErrorCode::kInvalidArgument,
                   "--delimiter takes one character or the word tab, not \"" + words.delimiter + "\"", ""};
    options.delimiter = words.delimiter[0];
  }
  return {};
}

Status require_columns(std::string_view verb, const DataOptions& options) {
  if (options.text_columns.empty() && options.text_template.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} needs the name of the column with the text", verb),
                 "add --text COLUMN"};
  }
  if (options.label_column.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} needs the name of the column with the label", verb),
                 "add --label COLUMN"};
  }
  return {};
}

std::filesystem::path unused_run_directory(const std::string& name) {
  const std::filesystem::path base = std::filesystem::path("runs") / name;
  std::filesystem::path out = base;
  std::error_code ignored;
  for (int i = 2; std::filesystem::exists(out, ignored); ++i) out = base.string() + "-" + std::to_string(i);
  return out;
}

Error explain_interruption(Error error, std::string_view verb, const std::filesystem::path& run) {
  if (error.code == ErrorCode::kCancelled && std::filesystem::exists(run / "run.json")) {
    error.message = "interrupted; what is finished is kept";
    error.hint = fmt::format("go on with: tailor {} --resume {}", verb, run.string());
  }
  return error;
}

}  // namespace tailor
