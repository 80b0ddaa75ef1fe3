#include "data/chat_examples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <optional>

#include "data/chat_collector.h"
#include "data/chat_json.h"
#include "data/chat_rules.h"
#include "data/csv.h"
#include "data/csv_text.h"
#include "text/encoding.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

enum class Format { kJson, kTable };

Result<Format> format_of(const fs::path& file) {
  std::string ending = file.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (ending == ".jsonl" || ending == ".ndjson" || ending == ".json") return Format::kJson;
  if (ending == ".csv" || ending == ".tsv") return Format::kTable;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: expected a name that ends with .jsonl, .json, .csv or .tsv, saw {}", file.string(),
                           ending.empty() ? "no ending" : fmt::format("'{}'", ending)),
               "rename the file, or export it as JSONL: one JSON object a line"};
}

/// The table's columns as fields. A column of flags is told by its first cell.
std::vector<ChatField> fields_of(const CsvTable& table) {
  std::vector<ChatField> fields;
  for (std::size_t column = 0; column < table.columns().size(); ++column) {
    const std::string_view cell = table.cell(0, column);
    const bool flag =
        cell == "0" || cell == "1" || cell == "true" || cell == "false" || cell == "True" || cell == "False";
    fields.push_back({table.columns()[column], flag ? ChatFieldKind::kBool : ChatFieldKind::kText});
  }
  return fields;
}

/// Cells of one row by the names of their columns.
class Row {
 public:
  Row(const CsvTable& table, std::span<const ChatField> fields) : table_(table), fields_(fields) {}

  void move_to(std::size_t row) { row_ = row; }
  bool has(std::string_view name) const { return column(name).has_value(); }
  std::string_view operator[](std::string_view name) const {
    const auto at = column(name);
    return at ? table_.cell(row_, *at) : std::string_view();
  }

 private:
  std::optional<std::size_t> column(std::string_view name) const {
    const auto found =
        std::find_if(fields_.begin(), fields_.end(), [&](const ChatField& field) { return field.name == name; });
    if (found == fields_.end()) return std::nullopt;
    return static_cast<std::size_t>(found - fields_.begin());
  }
  const CsvTable& table_;
  std::span<const ChatField> fields_;
  std::size_t row_ = 0;
};

struct TableShape {
  ExampleForm form;
  std::vector<std::string_view> needed;
  std::vector<std::string_view> optional;
};

Result<TableShape> table_shape(ChatShape shape, std::string_view file) {
  switch (shape) {
    case ChatShape::kAlpaca:
      return TableShape{ExampleForm::kChat, {"instruction", "output"}, {"input", "system"}};
    case ChatShape::kPromptCompletion:
      return TableShape{ExampleForm::kCompletion, {"prompt", "completion"}, {}};
    case ChatShape::kText:
      return TableShape{ExampleForm::kText, {"text"}, {}};
    default:
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: a table cannot hold {}", file, to_string(shape)),
                   "write them as JSONL: one JSON object a line"};
  }
}

Result<std::vector<ChatTurn>> turns_of(ChatShape shape, const Row& row, std::size_t max_bytes) {
  if (shape == ChatShape::kAlpaca) {
    return instruction_turns({row["instruction"], row["input"], row["output"], row["system"], {}}, max_bytes);
  }
  if (shape == ChatShape::kPromptCompletion) return completion_turns(row["prompt"], row["completion"], max_bytes);
  TAILOR_TRY(std::string text, checked_text(row["text"], "'text'", max_bytes));
  return std::vector<ChatTurn>{{"text", std::move(text), true}};
}

Result<ChatData> read_table(const CsvTable& table, const ChatReadOptions& options) {
  const std::vector<ChatField> fields = fields_of(table);
  const auto of_file = [&](const Error& error) {
    return Error{error.code, fmt::format("{}: {}", table.file(), error.message), error.hint};
  };
  if (const auto shape = recognise_shape(fields); !shape) return of_file(shape.error());
  ChatCollector collector(table.file(), ChatPlaces::kLines, options);
  TAILOR_TRY(const ChatShape shape, collector.shape_of(table.line(0), fields));
  TAILOR_TRY(const TableShape layout, table_shape(shape, table.file()));
  Row row(table, fields);
  for (const std::string_view name : layout.needed) {
    if (!row.has(name)) return of_file(missing_key(name, fields));
  }
  const auto is_used = [&](std::string_view name) {
    const auto among = [&](const auto& names) { return std::find(names.begin(), names.end(), name) != names.end(); };
    return among(layout.needed) || among(layout.optional);
  };
  for (std::size_t i = 0; i < table.rows(); ++i) {
    row.move_to(i);
    auto turns = turns_of(shape, row, options.max_text_bytes);
    if (!turns) return collector.at(table.line(i), turns.error());
    for (std::size_t column = 0; column < fields.size(); ++column) {
      if (!is_used(fields[column].name) && !table.cell(i, column).empty())
        collector.note_unused(table.line(i), fields[column].name);
    }
    TAILOR_CHECK(collector.add(table.line(i), layout.form, std::move(*turns)));
  }
  return collector.finish();
}

CsvOptions csv_options(const ChatReadOptions& options) {
  return {.encoding = options.encoding, .max_text_bytes = options.max_text_bytes};
}

/// 64 KiB from the beginning of a file; `whole` says whether that is all of it.
std::string read_beginning(const fs::path& file, bool& whole) {
  std::string bytes(std::size_t{1} << 16, '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  whole = in.eof();
  return bytes;
}

bool is_chat_table(const CsvTable& table) {
  const auto has = [&](std::string_view name) {
    const auto& columns = table.columns();
    return std::find(columns.begin(), columns.end(), name) != columns.end();
  };
  return (has("instruction") && has("output")) || (has("prompt") && has("completion"));
}

}  // namespace

Result<ChatData> read_chat_examples(const fs::path& file, const ChatReadOptions& options) {
  std::error_code ignored;
  if (fs::is_directory(file, ignored) || !fs::exists(file, ignored)) {
    TAILOR_CHECK(MappedFile::open(file));  // says so
  }
  TAILOR_TRY(const Format format, format_of(file));
  if (format == Format::kTable) {
    TAILOR_TRY(const CsvTable table, CsvTable::read(file, csv_options(options)));
    return read_table(table, options);
  }
  TAILOR_TRY(const CsvText text, CsvText::open(file, options.encoding));
  return parse_chat_json(text.view(), file.string(), options);
}

Result<ChatData> parse_chat_examples(std::string bytes, const std::string& name, const ChatReadOptions& options) {
  TAILOR_TRY(const Format format, format_of(name));
  if (format == Format::kTable) {
    TAILOR_TRY(const CsvTable table, CsvTable::parse(std::move(bytes), name, csv_options(options)));
    return read_table(table, options);
  }
  TAILOR_TRY(const CsvText text, CsvText::from_bytes(std::move(bytes), name, options.encoding));
  return parse_chat_json(text.view(), name, options);
}

bool looks_like_chat_data(const fs::path& file) {
  std::error_code ignored;
  const auto format = format_of(file);
  if (!format || !fs::is_regular_file(file, ignored)) return false;
  bool whole = false;
  std::string beginning = read_beginning(file, whole);
  if (*format == Format::kTable) {
    if (!whole) beginning.resize(beginning.rfind('\n') + 1);  // npos + 1 is 0
    auto table = CsvTable::parse(beginning, file.string());
    if (!table && !whole) table = CsvTable::read(file);  // a record longer than the beginning, or UTF-16 cut in two
    return table && is_chat_table(*table);
  }
  const ByteOrderMark mark = find_byte_order_mark(beginning);
  if (mark.encoding.empty() || mark.encoding == "UTF-8") {
    const auto answer = first_object_is_chat(std::string_view(beginning).substr(mark.mark_bytes));
    if (answer || whole) return answer.value_or(false);
  }
  const auto text = CsvText::open(file, "");
  return text && first_object_is_chat(text->view()).value_or(false);
}

}  // namespace tailor
