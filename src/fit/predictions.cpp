#include "fit/predictions.h"

#include <fmt/format.h>

#include <ostream>
#include <unordered_map>

#include "core/files.h"
#include "core/json.h"
#include "fit/classifier.h"

namespace tailor {

Predictions make_predictions(const std::vector<std::uint32_t>& ids, std::vector<int> truth, Matrix probabilities) {
  Predictions p{{ids.begin(), ids.end()}, std::move(truth), {}, std::move(probabilities)};
  p.predicted.reserve(p.rows.size());
  for (std::size_t i = 0; i < p.probabilities.rows; ++i)
    p.predicted.push_back(static_cast<int>(argmax(p.probabilities.row(i))));
  return p;
}

Status save_predictions(const std::filesystem::path& file, const Predictions& p,
                        const std::vector<std::string>& label_names) {
  const auto name = [&](int label) {
    return label < 0 ? Json(nullptr) : Json(label_names.at(static_cast<std::size_t>(label)));
  };
  return write_stream_atomic(file, [&](std::ostream& out) {
    std::string line;
    for (std::size_t i = 0; i < p.size(); ++i) {
      line = fmt::format(R"({{"row":{},"label":{},"predicted":{},"p":[)", p.rows[i], dump_json(name(p.truth[i])),
                         dump_json(name(p.predicted[i])));
      const auto values = p.probabilities.row(i);
      for (std::size_t c = 0; c < values.size(); ++c)
        fmt::format_to(std::back_inserter(line), "{}{:.6g}", c == 0 ? "" : ",", values[c]);
      line += "]}\n";
      out << line;
    }
    return Status{};
  });
}

Result<Predictions> load_predictions(const std::filesystem::path& file, const std::vector<std::string>& label_names) {
  TAILOR_TRY(const std::vector<Json> lines, read_jsonl(file));
  std::unordered_map<std::string, int> index;
  for (std::size_t i = 0; i < label_names.size(); ++i) index.emplace(label_names[i], static_cast<int>(i));
  Predictions p;
  p.probabilities = Matrix(lines.size(), label_names.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json& line = lines[i];
    const auto label_of = [&](const char* key) -> int {
      const auto it = line.find(key);
      if (it == line.end() || !it->is_string()) return -1;
      const auto known = index.find(it->get<std::string>());
      return known == index.end() ? -1 : known->second;
    };
    const auto values = line.find("p");
    if (!line.contains("row") || values == line.end() || !values->is_array() || values->size() != label_names.size()) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}:{}: expected a row with {} probabilities", file.string(), i + 1, label_names.size()),
                   ""};
    }
    p.rows.push_back(line["row"].get<std::int64_t>());
    p.truth.push_back(label_of("label"));
    p.predicted.push_back(label_of("predicted"));
    for (std::size_t c = 0; c < label_names.size(); ++c) p.probabilities.row(i)[c] = (*values)[c].get<float>();
  }
  return p;
}

Answers answers_of(const Predictions& p) {
  return {p.rows, p.truth, p.predicted};
}

}  // namespace tailor
