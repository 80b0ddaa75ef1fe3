#include "prompt/demonstration_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/json.h"

namespace tailor {

Status save_demonstrations(const std::filesystem::path& file, std::span<const Demonstration> rows,
                           std::span<const std::string> labels) {
  std::string lines;
  for (const Demonstration& row : rows)
    lines += dump_json({{"text", row.text}, {"label", labels[static_cast<std::size_t>(row.label)]}}) + "\n";
  return write_file_atomic(file, lines);
}

Result<std::vector<Demonstration>> load_demonstrations(const std::filesystem::path& file,
                                                       std::span<const std::string> labels) {
  const auto damaged = [&](const std::string& what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what),
                 "the package is damaged; make it again"};
  };
  TAILOR_TRY(const std::vector<Json> lines, read_jsonl(file));
  std::vector<Demonstration> rows;
  for (const Json& line : lines) {
    const Json text = line.is_object() ? line.value("text", Json()) : Json();
    const Json label = line.is_object() ? line.value("label", Json()) : Json();
    if (!text.is_string() || !label.is_string())
      return damaged(fmt::format("row {} has no text and label", rows.size() + 1));
    const auto at = std::find(labels.begin(), labels.end(), label.get_ref<const std::string&>());
    if (at == labels.end())
      return damaged(fmt::format("it has label '{}', which is not in the list", label.get_ref<const std::string&>()));
    rows.push_back({text.get<std::string>(), static_cast<std::int32_t>(at - labels.begin())});
  }
  return rows;
}

}  // namespace tailor
