#include "data/leaks.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.h"

namespace tailor {
namespace {

std::size_t distinct_second(const std::vector<NearPair>& pairs) {  // pairs are ordered by second
  std::size_t count = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) count += i == 0 || pairs[i].second != pairs[i - 1].second;
  return count;
}

std::string file_name(const Dataset& data, std::uint32_t row) {
  return std::filesystem::path(data.files[data.file_of[row]]).filename().string();
}

Json place(const Dataset& data, std::uint32_t row) {
  return {{"row", row}, {"file", file_name(data, row)}, {"line", data.lines[row]}};
}

Json pairs_to_json(const std::vector<NearPair>& pairs, const Dataset& data, std::size_t max_pairs,
                   bool with_similarity) {
  Json list = Json::array();
  for (const NearPair& pair : pairs) {
    if (list.size() >= max_pairs) break;
    Json entry = {{"training", place(data, pair.first)}, {"tested", place(data, pair.second)}};
    if (with_similarity) entry["similarity"] = pair.similarity;
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

Leaks find_leaks(const Dataset& data, std::span<const std::uint32_t> training, std::span<const std::uint32_t> tested,
                 const NearDuplicateOptions& options) {
  const auto texts_of = [&](std::span<const std::uint32_t> rows) {
    std::vector<std::string> texts;
    texts.reserve(rows.size());
    for (const std::uint32_t row : rows) texts.push_back(data.texts[row]);
    return texts;
  };
  CrossDuplicates found = find_cross_duplicates(texts_of(training), texts_of(tested), options);
  for (auto* pairs : {&found.exact, &found.near}) {
    for (NearPair& pair : *pairs) {
      pair.first = training[pair.first];
      pair.second = tested[pair.second];
    }
  }
  Leaks leaks;
  leaks.exact_rows = distinct_second(found.exact);
  leaks.near_rows = distinct_second(found.near);
  leaks.exact = std::move(found.exact);
  leaks.near = std::move(found.near);
  return leaks;
}

void add_leak_findings(const Dataset& data, const Leaks& leaks, std::size_t tested_rows, std::string_view training_name,
                       std::string_view tested_name, DataReport& report) {
  const auto add = [&](std::string code, std::string_view what, const std::vector<NearPair>& pairs, std::size_t rows) {
    if (rows == 0) return;
    std::vector<std::uint32_t> lines;
    std::vector<std::string> examples;
    for (const NearPair& pair : pairs) {
      if (lines.size() >= kExampleLines) break;
      if (!lines.empty() && lines.back() == data.lines[pair.second]) continue;
      lines.push_back(data.lines[pair.second]);
      examples.push_back(
          fmt::format("{} as {}:{}", data.lines[pair.second], file_name(data, pair.first), data.lines[pair.first]));
    }
    const std::string file = file_name(data, pairs.front().second);
    report.add(
        {Severity::kWarning, std::move(code),
         fmt::format("{} of {} {} rows stand {} in the {} rows as well ({} line {}{})", rows, tested_rows, tested_name,
                     what, training_name, file, fmt::join(examples, ", "), rows > lines.size() ? ", …" : ""),
         fmt::format("the {} score will look better than it is; leave these rows out of one of the two", tested_name),
         rows, std::move(lines)});
  };
  add("exact_leaks", "word for word", leaks.exact, leaks.exact_rows);
  add("near_leaks", "almost word for word", leaks.near, leaks.near_rows);
}

nlohmann::ordered_json to_json(const Leaks& leaks, const Dataset& data, std::size_t max_pairs) {
  return {{"exact_rows", leaks.exact_rows},
          {"near_rows", leaks.near_rows},
          {"exact", pairs_to_json(leaks.exact, data, max_pairs, false)},
          {"near", pairs_to_json(leaks.near, data, max_pairs, true)}};
}

}  // namespace tailor
