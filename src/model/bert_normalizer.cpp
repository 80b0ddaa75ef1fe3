#include "model/bert_normalizer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <memory>
#include <utility>

#include "model/utf8.h"

namespace tailor {
namespace {

struct CodePointRange {
  std::uint32_t first, last;
};
struct CodePointMapping {
  std::uint32_t from;
  std::uint32_t to[4];  // unused places are 0
};
struct CombiningClass {
  std::uint32_t code_point;
  std::uint8_t combining_class;
};

#include "model/bert_unicode_data.inc"

enum : std::uint16_t {
  kIsRemoved = 1,
  kIsBlank = 2,
  kIsWhite = 4,
  kIsPunctuation = 8,
  kIsMark = 16,
  kIsMarkStarter = 32,
  kIsStripped = 64,
  kIsLowered = 128,
  kIsKeptMark = 256,
};

template <std::size_t N>
bool contains(const CodePointRange (&ranges)[N], std::uint32_t c) {
  const auto* it = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                    [](std::uint32_t v, const CodePointRange& r) { return v < r.first; });
  return it != std::begin(ranges) && c <= std::prev(it)->last;
}

template <std::size_t N>
const CodePointMapping* find(const CodePointMapping (&mappings)[N], std::uint32_t c) {
  const auto* it = std::lower_bound(std::begin(mappings), std::end(mappings), c,
                                    [](const CodePointMapping& m, std::uint32_t v) { return m.from < v; });
  return it != std::end(mappings) && it->from == c ? it : nullptr;
}

const CombiningClass* find_kept_mark(std::uint32_t c) {
  const auto* it = std::lower_bound(std::begin(kKeptMarks), std::end(kKeptMarks), c,
                                    [](const CombiningClass& m, std::uint32_t v) { return m.code_point < v; });
  return it != std::end(kKeptMarks) && it->code_point == c ? it : nullptr;
}

std::uint16_t search_flags(std::uint32_t c) {
  int flags = 0;
  if (contains(kRemoved, c)) flags |= kIsRemoved;
  if (contains(kBlank, c)) flags |= kIsBlank;
  if (contains(kWhite, c)) flags |= kIsWhite;
  if (contains(kPunctuation, c)) flags |= kIsPunctuation;
  if (contains(kMarks, c)) flags |= kIsMark;
  if (contains(kMarkStarters, c)) flags |= kIsMarkStarter;
  if (find(kStripped, c) != nullptr) flags |= kIsStripped;
  if (find(kLowered, c) != nullptr) flags |= kIsLowered;
  if (find_kept_mark(c) != nullptr) flags |= kIsKeptMark;
  return static_cast<std::uint16_t>(flags);
}

using FlagTable = std::array<std::uint16_t, 0x10000>;

/// The basic plane's answers, searched once a process; a table of constants.
const FlagTable& basic_plane() {
  static const std::unique_ptr<const FlagTable> table = [] {
    auto t = std::make_unique<FlagTable>();
    for (std::uint32_t c = 0; c < t->size(); ++c) (*t)[c] = search_flags(c);
    return t;
  }();
  return *table;
}

std::uint16_t flags_of(std::uint32_t c) {
  static const FlagTable& table = basic_plane();
  return c < table.size() ? table[c] : search_flags(c);
}

bool is_chinese(std::uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
         (c >= 0x2B920 && c <= 0x2CEAF) ||  // begins at 2B820 in Unicode; the reference says 2B920
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

}  // namespace

std::array<AsciiRule, 128> ascii_rules(const WordPieceSettings& settings) {
  std::array<AsciiRule, 128> rules;
  for (std::uint32_t i = 0; i < rules.size(); ++i) {
    std::uint32_t c = i;
    AsciiRule& rule = rules[i];
    if (settings.clean_text && (flags_of(c) & kIsRemoved) != 0) {
      rule.kind = AsciiRule::kRemoved;
      continue;
    }
    if (settings.clean_text && (flags_of(c) & kIsBlank) != 0) c = ' ';
    if (settings.lowercase && (flags_of(c) & kIsLowered) != 0) c = find(kLowered, c)->to[0];
    rule.as = static_cast<char>(c);
    if ((flags_of(c) & kIsWhite) != 0) {
      rule.kind = AsciiRule::kWhite;
    } else if ((flags_of(c) & kIsPunctuation) != 0) {
      rule.kind = AsciiRule::kPunctuation;
    }
  }
  return rules;
}

BertWords::BertWords(const WordPieceSettings& settings, OnWord on_word)
    : settings_(settings), on_word_(std::move(on_word)) {}

bool BertWords::run(std::string_view text) {
  for (std::size_t at = 0; at < text.size() && going_;) {
    std::uint32_t c = next_code_point(text, at);
    if (settings_.clean_text) {
      const std::uint16_t flags = flags_of(c);
      if ((flags & kIsRemoved) != 0) continue;
      if ((flags & kIsBlank) != 0) c = ' ';
    }
    if (c >= 0x80 && settings_.handle_chinese_chars && is_chinese(c)) {
      take(' ');
      take(c);
      take(' ');
    } else {
      take(c);
    }
  }
  flush_marks();
  end_word();
  return going_;
}

void BertWords::take(std::uint32_t c) {
  if (settings_.strip_accents && c >= 0x80) {
    strip(c);
  } else {
    place(c);
  }
}

void BertWords::strip(std::uint32_t c) {
  constexpr std::uint32_t kHangul = 0xAC00, kHangulCount = 11172, kVowels = 21, kTails = 28;
  if (c >= kHangul && c < kHangul + kHangulCount) {  // Unicode, section 3.12
    const std::uint32_t s = c - kHangul;
    place(0x1100 + s / (kVowels * kTails));
    place(0x1161 + s % (kVowels * kTails) / kTails);
    if (s % kTails != 0) place(0x11A7 + s % kTails);
    return;
  }
  const std::uint16_t flags = flags_of(c);
  if ((flags & kIsMark) != 0) return;
  if ((flags & kIsMarkStarter) != 0) return flush_marks();
  if ((flags & kIsStripped) == 0) return place(c);
  for (const std::uint32_t part : find(kStripped, c)->to) {
    if (part != 0) place(part);
  }
}

void BertWords::place(std::uint32_t c) {
  if (settings_.strip_accents && (flags_of(c) & kIsKeptMark) != 0) {
    const Mark mark{c, find_kept_mark(c)->combining_class};
    const auto behind = std::upper_bound(marks_.begin(), marks_.end(), mark, [](const Mark& a, const Mark& b) {
      return a.combining_class < b.combining_class;
    });
    marks_.insert(behind, mark);
    return;
  }
  if (!marks_.empty()) flush_marks();
  lower(c);
}

void BertWords::flush_marks() {
  for (const Mark& mark : marks_) lower(mark.code_point);
  marks_.clear();
}

void BertWords::lower(std::uint32_t c) {
  if (!settings_.lowercase || (flags_of(c) & kIsLowered) == 0) return append(c);
  for (const std::uint32_t part : find(kLowered, c)->to) {
    if (part != 0) append(part);
  }
}

void BertWords::append(std::uint32_t c) {
  const std::uint16_t flags = flags_of(c);
  if ((flags & kIsWhite) != 0) return end_word();
  if ((flags & kIsPunctuation) != 0) end_word();
  append_utf8(c, word_);
  ++code_points_;
  if ((flags & kIsPunctuation) != 0) end_word();
}

void BertWords::end_word() {
  if (word_.empty()) return;
  if (going_) going_ = on_word_(word_, code_points_);
  word_.clear();
  code_points_ = 0;
}

}  // namespace tailor
