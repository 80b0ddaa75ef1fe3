#pragma once
/// YAML as a tree that remembers lines, order and keys that are given twice. JSON is read too: it is YAML.
/// Values stay as they are written: what `2e-4` or `no` means is for the setting to say, since readers of YAML 1.1 and
/// 1.2 disagree about both.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string text;     // of a scalar, without its quotes
  bool quoted = false;  // a quoted scalar is a text, whatever it looks like
  int line = 0;         // 1-based; 0: not from a file
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;  // of a map, in the order of the file; one name may come twice
};

struct YamlEntry {
  std::string name;
  int line = 0;
  YamlNode value;
};

inline constexpr std::size_t kMaxYamlBytes = std::size_t{256} << 10;
inline constexpr std::size_t kMaxYamlDepth = 16;

/// One document; an empty one is kNull. `where` names it in errors ("tune.yaml"). Refused: several documents, anchors,
/// aliases and tags (what they stand for cannot be shown by line), keys that are not plain words, more than
/// kMaxYamlBytes or kMaxYamlDepth, bytes that are not UTF-8.
Result<YamlNode> parse_yaml(std::string_view text, std::string_view where);
Result<YamlNode> read_yaml(const std::filesystem::path& file);

}  // namespace tailor
