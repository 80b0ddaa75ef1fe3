#include "model/model_card.h"

#include "core/files.h"

namespace tailor {

ModelCard read_model_card(const std::filesystem::path& dir) {
  ModelCard card;
  const auto text = read_file(dir / "README.md", 16 << 20);
  if (!text || !text->starts_with("---")) return card;
  const std::string front = text->substr(0, text->find("\n---", 3));
  bool in_languages = false;
  for (std::size_t at = 0; at < front.size();) {
    std::size_t end = front.find('\n', at);
    if (end == std::string::npos) end = front.size();
    std::string line = front.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto trimmed = [&](std::size_t from) {
      const auto first = line.find_first_not_of(" \"'", from);
      return first == std::string::npos ? std::string() : line.substr(first, line.find_last_not_of(" \"'") - first + 1);
    };
    if (line.starts_with("license:")) card.licence = trimmed(8);
    if (in_languages && line.starts_with("-") && !line.starts_with("---")) {
      card.languages.push_back(trimmed(1));
      continue;
    }
    in_languages = line.starts_with("language:");
    if (in_languages) {
      if (auto one = trimmed(9); !one.empty() && one[0] != '[') card.languages.push_back(std::move(one));
    }
  }
  return card;
}

}  // namespace tailor
