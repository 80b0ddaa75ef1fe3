#include "data/tag_scheme.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "core/tag_spans.h"
#include "text/edit_distance.h"

namespace tailor {
namespace {

constexpr std::string_view kLetters = "BIESLUM";

/// 'O', or one of B I E S and the type; L is E, U is S, M is I. '\0': neither.
struct Mark {
  char letter = '\0';
  std::string_view type;
};

Mark mark_of(std::string_view tag) {
  if (tag == "O") return {'O', {}};
  if (tag.size() < 3 || tag[1] != '-' || kLetters.find(tag[0]) == std::string_view::npos) return {};
  const char letter = tag[0] == 'L' ? 'E' : tag[0] == 'U' ? 'S' : tag[0] == 'M' ? 'I' : tag[0];
  return {letter, tag.substr(2)};
}

}  // namespace

Result<TagScheme> TagScheme::of(std::span<const std::vector<std::string>> rows) {
  std::set<std::string> tags;
  for (const auto& row : rows) tags.insert(row.begin(), row.end());
  TagScheme scheme;
  scheme.iob2 = std::all_of(tags.begin(), tags.end(), [](const std::string& t) { return mark_of(t).letter != '\0'; });
  std::set<std::string> names;
  for (const std::string& tag : tags) {
    if (!scheme.iob2)
      names.insert(tag);
    else if (tag != "O")
      names.emplace(mark_of(tag).type);
  }
  scheme.names.assign(names.begin(), names.end());
  if (scheme.names.empty() || scheme.label_names().size() < 2) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("every word has the tag \"{}\": there is nothing to learn", *tags.begin()), ""};
  }
  return scheme;
}

TagScheme TagScheme::of_labels(std::vector<std::string> labels, bool iob2) {
  TagScheme scheme{iob2, {}};
  if (!iob2) {
    scheme.names = std::move(labels);
    return scheme;
  }
  for (std::size_t i = 1; i < labels.size(); i += 2) scheme.names.push_back(labels[i].substr(2));
  return scheme;
}

std::vector<std::string> TagScheme::label_names() const {
  if (!iob2) return names;
  std::vector<std::string> labels{"O"};
  for (const std::string& type : names) {
    labels.push_back("B-" + type);
    labels.push_back("I-" + type);
  }
  return labels;
}

Result<std::vector<std::int32_t>> TagScheme::ids_of(std::span<const std::string> tags) const {
  std::vector<std::int32_t> ids;
  Mark before{'O', {}};
  for (const std::string& tag : tags) {
    const Mark mark = iob2 ? mark_of(tag) : Mark{'B', tag};
    const auto found = std::lower_bound(names.begin(), names.end(), mark.type);
    if (mark.letter != 'O' && (found == names.end() || *found != mark.type)) {
      const auto labels = label_names();
      const std::string nearest = nearest_name(tag, labels);
      return Error{ErrorCode::kInvalidArgument, fmt::format("the tag \"{}\" is not in the training file", tag),
                   nearest.empty() ? "" : fmt::format("did you mean \"{}\"?", nearest)};
    }
    const auto name = static_cast<std::int32_t>(found - names.begin());
    if (!iob2) {
      ids.push_back(name);
      continue;
    }
    const bool begins = mark.letter == 'B' || mark.letter == 'S' || before.type != mark.type || before.letter == 'O' ||
                        before.letter == 'E' || before.letter == 'S';
    ids.push_back(mark.letter == 'O' ? kOutside : begins ? first_tag(name) : inner_tag(name));
    before = mark;
  }
  return ids;
}

}  // namespace tailor
