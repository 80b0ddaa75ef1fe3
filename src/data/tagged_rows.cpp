#include "data/tagged_rows.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>

#include "core/json_lines.h"
#include "data/csv_text.h"
#include "text/unicode.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 2> kWordKeys = {"tokens", "words"};
constexpr std::array<std::string_view, 6> kTagKeys = {"tags", "ner_tags", "slots", "pos_tags", "labels", "label"};
constexpr std::array<std::string_view, 4> kSpanKeys = {"spans", "entities", "labels", "label"};
constexpr std::array<std::string_view, 3> kSpanLabels = {"label", "type", "entity_group"};
constexpr std::string_view kBlanks = " \t\r";

/// A place in the file, for errors.
struct Place {
  const std::string& file;
  std::uint32_t line;
  Error wrong(std::string what, std::string hint = "") const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", file, line, what), std::move(hint)};
  }
};

bool is_list_of_texts(const Json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); });
}

/// The first of `names` that is a key with a list, or `given` alone.
template <std::size_t N>
const Json* find_list(const Json& row, const std::string& given, const std::array<std::string_view, N>& names) {
  if (!given.empty()) return row.contains(given) ? &row.at(given) : nullptr;
  for (const std::string_view name : names) {
    if (const auto found = row.find(name); found != row.end() && found->is_array()) return &*found;
  }
  return nullptr;
}

void add_word(TaggedRow& row, std::string_view word) {
  if (!row.words.empty()) row.text += ' ';
  const auto begin = static_cast<std::uint32_t>(row.text.size());
  row.text += word;
  row.words.push_back({begin, static_cast<std::uint32_t>(row.text.size())});
}

/// [begin, end) in code points and the label.
using CharSpan = std::tuple<std::size_t, std::size_t, std::string>;

Result<CharSpan> span_of(const Json& value, const Place& place) {
  const auto bad = [&] {
    return place.wrong(fmt::format("{} is not a span", dump_json(value).substr(0, 80)),
                       "a span is {\"start\": 0, \"end\": 4, \"label\": \"person\"} or [0, 4, \"person\"]");
  };
  Json start, end, label;
  if (value.is_array() && value.size() == 3) {
    start = value[0], end = value[1], label = value[2];
  } else if (value.is_object()) {
    start = value.value("start", Json()), end = value.value("end", Json());
    for (const std::string_view key : kSpanLabels) {
      if (label.is_null() && value.contains(key)) label = value.at(std::string(key));
    }
  }
  if (!start.is_number_unsigned() || !end.is_number_unsigned() || !label.is_string() ||
      label.get<std::string>().empty())
    return bad();
  return CharSpan{start.get<std::size_t>(), end.get<std::size_t>(), label.get<std::string>()};
}

/// Byte offset of each code point of the text, and of its end.
std::vector<std::uint32_t> code_point_places(std::string_view text) {
  std::vector<std::uint32_t> places;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) places.push_back(static_cast<std::uint32_t>(i));
  }
  places.push_back(static_cast<std::uint32_t>(text.size()));
  return places;
}

Status tag_by_spans(TaggedRow& row, const Json& spans, const Place& place, TaggedRows& out) {
  const auto places = code_point_places(row.text);
  std::vector<CharSpan> sorted;
  for (const Json& value : spans) {
    TAILOR_TRY(CharSpan span, span_of(value, place));
    const auto [start, end, label] = span;
    if (start >= end || end >= places.size()) {
      return place.wrong(fmt::format("a span from {} to {} in a text of {} characters", start, end, places.size() - 1),
                         "start is the first character, counted from 0, end the first one after it");
    }
    sorted.push_back(std::move(span));
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const CharSpan& a, const CharSpan& b) { return std::get<0>(a) < std::get<0>(b); });
  row.tags.assign(row.words.size(), "O");
  std::size_t next = 0;  // the first word that no span has
  for (const auto& [start, end, label] : sorted) {
    const std::uint32_t begin = places[start], stop = places[end];
    std::size_t first = next;
    while (first < row.words.size() && row.words[first].end <= begin) ++first;
    std::size_t last = first;
    while (last < row.words.size() && row.words[last].begin < stop) ++last;
    const bool taken = next > 0 && row.words[next - 1].end > begin && row.tags[next - 1] != "O";
    if (taken || first == last) {
      ++out.overlapping;
      continue;
    }
    // Blanks at a span's ends belong to no word.
    out.adjusted += row.words[first].begin < begin || row.words[last - 1].end > stop ? 1 : 0;
    for (std::size_t w = first; w < last; ++w) row.tags[w] = (w == first ? "B-" : "I-") + label;
    next = last;
  }
  return {};
}

Status add_json_row(const Json& value, const TaggedReadOptions& options, const Place& place, TaggedRows& out) {
  if (!value.is_object()) return place.wrong("expected an object", "{\"tokens\": [...], \"tags\": [...]}");
  TaggedRow row;
  row.line = place.line;
  const Json* words = find_list(value, options.words_key, kWordKeys);
  if (words != nullptr && is_list_of_texts(*words)) {
    row.in_words = true;
    for (const Json& word : *words) add_word(row, word.get<std::string>());
    const Json* tags = find_list(value, options.tags_key, kTagKeys);
    if (tags != nullptr && (is_list_of_texts(*tags) || options.needs_tags)) {
      if (std::any_of(tags->begin(), tags->end(), [](const Json& v) { return v.is_number(); }))
        return place.wrong("its tags are numbers, and nothing says which names they stand for",
                           "write the names of the tags into the file, such as \"B-person\"");
      if (!is_list_of_texts(*tags))
        return place.wrong("its tags are not a list of texts", "\"tags\": [\"B-person\", \"O\"]");
      if (tags->size() != words->size())
        return place.wrong(fmt::format("it has {} words and {} tags", words->size(), tags->size()));
      row.tags = tags->get<std::vector<std::string>>();
    }
  } else {
    const std::string key = options.words_key.empty() ? "text" : options.words_key;
    const auto text = value.find(key);
    if (text == value.end() || !text->is_string()) {
      return place.wrong(
          options.words_key.empty() ? "it has neither \"tokens\" nor \"text\"" : fmt::format("it has no \"{}\"", key),
          "a row is {\"tokens\": [...], \"tags\": [...]} or {\"text\": \"…\", \"spans\": [...]}");
    }
    row = untagged_row(text->get<std::string>());
    row.line = place.line;
    if (const Json* spans = find_list(value, options.tags_key, kSpanKeys); spans != nullptr)
      TAILOR_CHECK(tag_by_spans(row, *spans, place, out));
  }
  if (row.words.empty()) {
    ++out.empty;
    return {};
  }
  if (row.tags.empty() && options.needs_tags) {
    return place.wrong(row.in_words ? "it has no tags" : "it has no spans",
                       row.in_words ? "\"tags\" has a tag for each word, \"O\" outside of every span"
                                    : "\"spans\" may be an empty list");
  }
  out.rows.push_back(std::move(row));
  return {};
}

std::vector<std::string_view> columns_of(std::string_view line) {
  std::vector<std::string_view> columns;
  const bool tabs = line.find('\t') != std::string_view::npos;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t end = std::min(line.find_first_of(tabs ? "\t" : " ", at), line.size());
    if (end > at || tabs) columns.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return columns;
}

bool looks_like_a_tag(std::string_view s) {
  return s == "O" || (s.size() > 2 && (s[1] == '-' || s[1] == '_'));
}

Status read_columns(std::string_view text, const std::string& name, const TaggedReadOptions& options, TaggedRows& out) {
  TaggedRow row;
  std::size_t width = 0;
  const auto close = [&] {
    if (!row.words.empty()) out.rows.push_back(std::move(row));
    row = {};
    width = 0;
  };
  std::uint32_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    while (!line.empty() && kBlanks.find(line.back()) != std::string_view::npos) line.remove_suffix(1);
    if (line.empty() || line.starts_with("-DOCSTART-")) {
      close();
      continue;
    }
    const auto columns = columns_of(line);
    if (row.words.empty() && line.starts_with("#") && !looks_like_a_tag(columns.back())) continue;
    const Place place{name, number};
    if (columns.front().empty()) return place.wrong("the line has no word", "the word is the first column");
    if (columns.size() == 1 && options.needs_tags) {
      return place.wrong(fmt::format("\"{}\" has no tag", shorten(columns[0], 40)),
                         "a line is a word, a tab and its tag; an empty line ends a text");
    }
    if (width != 0 && (width == 1) != (columns.size() == 1))
      return place.wrong("some words of this text have a tag and others have none");
    if (row.words.empty()) {
      row.line = number;
      row.in_words = true;
    }
    width = columns.size();
    add_word(row, columns.front());
    if (columns.size() > 1) row.tags.emplace_back(columns.back());
  }
  close();
  return {};
}

}  // namespace

TaggedRow untagged_row(std::string text) {
  TaggedRow row;
  row.text = std::move(text);
  row.words = word_spans(row.text);
  return row;
}

Result<TaggedRows> read_tagged_rows(const fs::path& file, const TaggedReadOptions& options) {
  TAILOR_TRY(const CsvText content, CsvText::open(file, options.encoding));
  const std::string_view text = content.view();
  const std::string name = file.string();
  TaggedRows out;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const std::string ending = file.extension().string();
  const bool json_name = ending == ".json" || ending == ".jsonl" || ending == ".ndjson";
  const char sign = first == std::string_view::npos ? '\0' : text[first];
  if (sign == '[' && json_name) {
    TAILOR_TRY(const Json list, parse_json(text, name));
    std::uint32_t place = 0;
    for (const Json& value : list) TAILOR_CHECK(add_json_row(value, options, {name, ++place}, out));
  } else if (sign == '{' || json_name) {
    TAILOR_CHECK(each_json_line(text, name, [&](const Json& value, std::uint32_t number) {
      return add_json_row(value, options, {name, number}, out);
    }));
  } else {
    TAILOR_CHECK(read_columns(text, name, options, out));
  }
  if (out.rows.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: it has no row with words", name),
                 "{\"tokens\": [...], \"tags\": [...]} a line, or a word and its tag a line"};
  }
  return out;
}

}  // namespace tailor
