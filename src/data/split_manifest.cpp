#include "data/split_manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"

namespace tailor {

Status write_split_manifest(const std::filesystem::path& file, const Dataset& data, const SplitPlan& plan) {
  return write_stream_atomic(file, [&](std::ostream& out) {
    for (std::size_t row = 0; row < data.size(); ++row) {
      Json line = {{"row", row},
                   {"file", std::filesystem::path(data.files[data.file_of[row]]).filename().string()},
                   {"line", data.lines[row]},
                   {"part", name_of(plan.part[row])}};
      if (plan.fold[row] != kNoFold) line["fold"] = plan.fold[row];
      line["label"] = data.label_names[static_cast<std::size_t>(data.labels[row])];
      line["sha256"] = sha256_hex(data.texts[row]);
      out << dump_json(line) << '\n';
    }
    return Status{};
  });
}

Result<SplitPlan> read_split_manifest(const std::filesystem::path& file, const Dataset& data) {
  TAILOR_TRY(const std::vector<Json> lines, read_jsonl(file));
  const auto error = [&](std::size_t row, const std::string& what, std::string hint = "") {
    return Error{ErrorCode::kCorruptData, fmt::format("{}:{}: {}", file.string(), row + 1, what), std::move(hint)};
  };
  if (lines.size() != data.size()) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{} has {} rows, the data has {}", file.string(), lines.size(), data.size()),
                 "the data files changed since the split was made"};
  }
  SplitPlan plan;
  plan.part.reserve(lines.size());
  plan.fold.reserve(lines.size());
  int folds = 0;
  for (std::size_t row = 0; row < lines.size(); ++row) {
    const Json& line = lines[row];
    const auto text = [&](const char* key) {
      const auto found = line.find(key);
      return found != line.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    if (!line.is_object() || !line.contains("row") || line["row"] != row)
      return error(row, fmt::format("expected the object of row {}", row));
    const std::string part = text("part");
    const auto known = {Part::kTrain, Part::kValidation, Part::kTest};
    const auto* const found = std::find_if(known.begin(), known.end(), [&](Part p) { return name_of(p) == part; });
    if (found == known.end()) return error(row, fmt::format("part is '{}', expected train, validation or test", part));
    if (text("label") != data.label_names[static_cast<std::size_t>(data.labels[row])] ||
        text("sha256") != sha256_hex(data.texts[row])) {
      return error(
          row,
          fmt::format("the text or label is not that of {} line {}", data.files[data.file_of[row]], data.lines[row]),
          "the data files changed since the split was made");
    }
    std::uint8_t fold = kNoFold;
    if (line.contains("fold")) {
      if (!line["fold"].is_number_unsigned() || line["fold"] >= kNoFold)
        return error(row, "fold is no number from 0 to 254");
      fold = line["fold"].get<std::uint8_t>();
      folds = std::max(folds, fold + 1);
    }
    plan.part.push_back(*found);
    plan.fold.push_back(fold);
  }
  plan.folds = folds;
  plan.mode = folds > 0 ? SplitMode::kKFold : SplitMode::kHoldout;
  return plan;
}

}  // namespace tailor
