#include "config/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <optional>
#include <sstream>

#include "core/files.h"
#include "text/unicode.h"

namespace tailor {
namespace {

/// What stops the parser from inside a callback.
struct Refusal {
  Error error;
};

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(std::string_view where, std::string_view text) : where_(where), text_(text) {}

  YamlNode take() { return root_ ? std::move(*root_) : YamlNode{}; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { add(leaf(YamlNode::Kind::kNull, mark)); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "an alias (*name)"); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse(mark, "an anchor (&name)"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    check_tag(mark, tag);
    if (tag == "!") check_closed(mark);
    YamlNode node = leaf(YamlNode::Kind::kScalar, mark);
    node.text = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::kList, mark, tag);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::kMap, mark, tag);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YamlNode node;
    std::optional<YamlEntry> key;  // of a map, while its value is awaited
  };

  [[noreturn]] void refuse(const YAML::Mark& mark, std::string_view what) const {
    throw Refusal{{ErrorCode::kInvalidArgument, fmt::format("{}:{}: {} is not read here", where_, mark.line + 1, what),
                   "write out what it stands for"}};
  }
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, fmt::format("a tag ({})", tag.substr(0, 40)));
  }
  /// yaml-cpp takes the rest of the file for a text whose quote is never closed.
  void check_closed(const YAML::Mark& mark) const {
    const auto begin = static_cast<std::size_t>(mark.pos);
    if (begin >= text_.size() || (text_[begin] != '"' && text_[begin] != '\'')) return;  // | and > have no end mark
    const char quote = text_[begin];
    std::size_t at = begin + 1;
    while (at < text_.size() && text_[at] != quote) at += quote == '"' && text_[at] == '\\' ? 2 : 1;
    if (at >= text_.size()) {
      throw Refusal{{ErrorCode::kInvalidArgument,
                     fmt::format("{}:{}: not YAML: a quote is opened and never closed", where_, mark.line + 1),
                     "close it"}};
    }
  }
  static YamlNode leaf(YamlNode::Kind kind, const YAML::Mark& mark) {
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    return node;
  }
  void open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    check_tag(mark, tag);
    if (open_.size() >= kMaxYamlDepth) {
      throw Refusal{{ErrorCode::kInvalidArgument,
                     fmt::format("{}:{}: lists and maps stand more than {} deep", where_, mark.line + 1, kMaxYamlDepth),
                     "settings need two levels"}};
    }
    open_.push_back({leaf(kind, mark), {}});
  }
  void close() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(node));
  }
  void add(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kList) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.key) {
      if (node.kind != YamlNode::Kind::kScalar) {
        throw Refusal{{ErrorCode::kInvalidArgument,
                       fmt::format("{}:{}: expected the name of a setting before a colon", where_, node.line),
                       "write name: value"}};
      }
      parent.key = YamlEntry{std::move(node.text), node.line, {}};
    } else {
      parent.key->value = std::move(node);
      parent.node.entries.push_back(std::move(*parent.key));
      parent.key.reset();
    }
  }

  std::string_view where_, text_;
  std::vector<Open> open_;
  std::optional<YamlNode> root_;
};

}  // namespace

Result<YamlNode> parse_yaml(std::string_view text, std::string_view where) {
  if (text.size() > kMaxYamlBytes) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} bytes are too many for settings (at most {})", where, text.size(), kMaxYamlBytes),
                 "is it the right file?"};
  }
  if (const std::size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: byte {} is not UTF-8", where, at + 1), "save it as UTF-8"};
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  TreeBuilder builder(where, text);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlNode root = builder.take();
    TreeBuilder second(where, text);
    if (parser.HandleNextDocument(second)) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: holds several documents", where),
                   "keep one, without a line of three dashes between settings"};
    }
    return root;
  } catch (const Refusal& refusal) {
    return refusal.error;
  } catch (const YAML::Exception& error) {
    return Error{ErrorCode::kInvalidArgument,
                 error.mark.is_null() ? fmt::format("{}: not YAML: {}", where, error.msg)
                                      : fmt::format("{}:{}: not YAML, column {}: {}", where, error.mark.line + 1,
                                                    error.mark.column + 1, error.msg),
                 "each line is `name: value`; a text with a colon or a # in it stands in quotes"};
  }
}

Result<YamlNode> read_yaml(const std::filesystem::path& file) {
  TAILOR_TRY(const std::string text, read_file(file, kMaxYamlBytes + 1));
  return parse_yaml(text, file.string());
}

}  // namespace tailor
