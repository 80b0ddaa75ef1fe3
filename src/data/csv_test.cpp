#include "data/csv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "core/files.h"
#include "core/rng.h"
#include "data/csv_text.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using Rows = std::vector<std::vector<std::string>>;
using std::string_literals::operator""s;

Rows rows_of(const CsvTable& table) {
  Rows rows(table.rows());
  for (std::size_t row = 0; row < table.rows(); ++row) {
    for (std::size_t column = 0; column < table.columns().size(); ++column)
      rows[row].emplace_back(table.cell(row, column));
  }
  return rows;
}
std::vector<std::uint32_t> lines_of(const CsvTable& table) {
  std::vector<std::uint32_t> lines;
  for (std::size_t row = 0; row < table.rows(); ++row) lines.push_back(table.line(row));
  return lines;
}
CsvTable parse(std::string bytes, const CsvOptions& options = {}) {
  return CsvTable::parse(std::move(bytes), "in.csv", options).value();
}
std::string error_of(std::string bytes, const CsvOptions& options = {}) {
  const auto table = CsvTable::parse(std::move(bytes), "in.csv", options);
  return table ? "no error" : to_string(table.error());
}

TEST(Csv, ReadsQuotesLineBreaksAndDoubledQuotes) {
  const CsvTable table = parse(
      "text,label\r\nplain,a\r\n\"with, comma\",b\r\n\"two\r\nlines\",c\r\n\"say \"\"hi\"\"\",d\r\n\"\"\"\",e\r\nin "
      "5\" wide,f\r\n,g\r\n");
  EXPECT_EQ(table.columns(), (std::vector<std::string>{"text", "label"}));
  EXPECT_EQ(rows_of(table), (Rows{{"plain", "a"},
                                  {"with, comma", "b"},
                                  {"two\r\nlines", "c"},
                                  {"say \"hi\"", "d"},
                                  {"\"", "e"},
                                  {"in 5\" wide", "f"},
                                  {"", "g"}}));
  EXPECT_EQ(lines_of(table), (std::vector<std::uint32_t>{2, 3, 4, 6, 7, 8, 9}));
}

TEST(Csv, CellsStayValidWhenTheTableMoves) {
  CsvTable first = parse("a,b\nx,\"y\"\"z\"\n");
  const CsvTable second = std::move(first);
  EXPECT_EQ(rows_of(second), (Rows{{"x", "y\"z"}}));
}

TEST(Csv, LineEndsOfAllSystemsAndEmptyLines) {
  const Rows expected = {{"1", "2"}, {"3", "4"}};
  for (const std::string bytes : {"a,b\n1,2\n3,4\n", "a,b\n1,2\n3,4", "a,b\r\n1,2\r\n3,4\r\n", "a,b\r1,2\r3,4\r",
                                  "a,b\r1,2\r3,4", "\n\na,b\n\n1,2\n\r\n3,4\n\n\n"}) {
    EXPECT_EQ(rows_of(parse(bytes)), expected) << bytes;
  }
  EXPECT_EQ(lines_of(parse("\n\na,b\n\n1,2\n\r\n3,4\n\n\n")), (std::vector<std::uint32_t>{5, 7}));
  EXPECT_EQ(lines_of(parse("a,b\r\"1\rx\",2\r3,4\r")), (std::vector<std::uint32_t>{2, 4}));
}

TEST(Csv, LastCellMayBeEmptyAtTheEndOfTheFile) {
  EXPECT_EQ(rows_of(parse("a,b\n1,")), (Rows{{"1", ""}}));
}

TEST(Csv, SpacesAfterAClosingQuoteAreNoText) {
  EXPECT_EQ(rows_of(parse("a,b\n\"1\" ,\"2\"  \n")), (Rows{{"1", "2"}}));
  EXPECT_EQ(rows_of(parse("a\tb\n\"1\"\t\"2\"\n")), (Rows{{"1", "2"}}));
}

TEST(Csv, DelimiterIsSniffedOutsideQuotes) {
  EXPECT_EQ(parse("a,b\n1;5,2;5;5\n").delimiter(), ',');
  EXPECT_EQ(parse("a;b\n\"1,5;x\";2\n3,5;4,1\n").delimiter(), ';');
  EXPECT_EQ(parse("text\tlabel\nhello, you; there\tx\n").delimiter(), '\t');
  EXPECT_EQ(parse("text|label\na, b|x\n").delimiter(), '|');
  EXPECT_EQ(parse("\"a;b\",c\n1,2\n").delimiter(), ',');
  EXPECT_EQ(parse("text\nhello; there|you\n").delimiter(), ',');  // one column
  EXPECT_EQ(rows_of(parse("a;b,c\n1;2,3\n", {.delimiter = ';'})), (Rows{{"1", "2,3"}}));
}

TEST(Csv, ExcelsSeparatorLine) {
  const CsvTable table = parse("sep=|\r\na|b,c\r\n1|2\r\n");
  EXPECT_EQ(rows_of(table), (Rows{{"1", "2"}}));
  EXPECT_EQ(table.line(0), 3U);
}

TEST(Csv, ByteOrderMarksAndEncodings) {
  const Rows expected = {{"caf\xC3\xA9", "x"}};
  EXPECT_EQ(rows_of(parse("\xEF\xBB\xBF"
                          "a,b\ncaf\xC3\xA9,x\n")),
            expected);
  EXPECT_EQ(parse("\xEF\xBB\xBF"
                  "a,b\ncaf\xC3\xA9,x\n")
                .columns()[0],
            "a");
  EXPECT_EQ(rows_of(parse("a,b\ncaf\xE9,x\n", {.encoding = "windows-1252"})), expected);
  EXPECT_EQ(rows_of(parse("a,b\ncaf\xE9,x\n", {.encoding = "latin1"})), expected);
  EXPECT_EQ(rows_of(parse("a,b\n\x93q\x94,x\n", {.encoding = "windows-1252"})),
            (Rows{{"\xE2\x80\x9Cq\xE2\x80\x9D", "x"}}));
  std::string little = "\xFF\xFE", big = "\xFE\xFF", wide = "\xFF\xFE\0\0"s;
  for (const char16_t c : std::u16string(u"a,b\ncaf\u00E9,x\n")) {
    const char low = static_cast<char>(c & 0xFF), high = static_cast<char>(c >> 8);
    little += {low, high};
    big += {high, low};
    wide += {low, high, '\0', '\0'};
  }
  EXPECT_EQ(rows_of(parse(little)), expected);
  EXPECT_EQ(parse(little).encoding(), "UTF-16LE");
  EXPECT_EQ(rows_of(parse(big)), expected);
  EXPECT_EQ(rows_of(parse(wide)), expected);
}

TEST(Csv, TranscodesSurrogatePairsAcrossBlocks) {
  std::string little = "\xFF\xFE";
  const auto put = [&](char16_t c) { little += {static_cast<char>(c & 0xFF), static_cast<char>(c >> 8)}; };
  for (const char c : std::string("a,b\nx")) put(static_cast<char16_t>(static_cast<unsigned char>(c)));
  std::string emoji = "x";
  for (int i = 0; i < 70000; ++i) {  // odd start, so that some pair meets the end of each 32 Ki block
    put(0xD83D);
    put(0xDE00);
    emoji += "\xF0\x9F\x98\x80";
  }
  for (const char c : std::string(",2\n")) put(static_cast<char16_t>(static_cast<unsigned char>(c)));
  EXPECT_EQ(rows_of(parse(little)), (Rows{{emoji, "2"}}));
}

TEST(Csv, ErrorsNameLineAndRemedy) {
  EXPECT_EQ(error_of("a,b\n1,2\n1,2,3\n"),
            "in.csv:3: expected 2 fields as in the header, saw 3 (a text that holds a comma must stand in double "
            "quotes; fields are read as separated by a comma (--delimiter))");
  EXPECT_EQ(error_of("a,b\n1,2\n1\n"),
            "in.csv:3: expected 2 fields as in the header, saw 1 (fields are read as separated by a comma "
            "(--delimiter); a text with line breaks must stand in double quotes)");
  EXPECT_TRUE(error_of("a,b\n1,2\n\"open,2\n3,4\n").starts_with("in.csv:3: a quote is opened here and never closed"));
  EXPECT_TRUE(
      error_of("a,b\n\"x\"y,2\n")
          .starts_with(
              "in.csv:2: expected a comma or the end of the line after the closing quote of field 1, saw 'y,2'"));
  EXPECT_NE(error_of("a,b\n\"open,2\n\"text\",4\n").find("; the quote was opened on line 2"), std::string::npos);
  EXPECT_TRUE(error_of("").starts_with("in.csv is empty"));
  EXPECT_TRUE(error_of("\xEF\xBB\xBF\n\n").starts_with("in.csv is empty"));
  EXPECT_TRUE(error_of("text,label\n").starts_with("in.csv holds a header ('text', 'label') and no rows"));
  EXPECT_TRUE(error_of("a,b,a\n1,2,3\n").starts_with("in.csv:1: two columns are called 'a' (fields 1 and 3)"));
  EXPECT_TRUE(error_of("a,b\ncaf\xE9,x\n")
                  .starts_with("in.csv:2: byte 8 of the file (0xE9) is not UTF-8 (if the file was saved by Excel"));
  EXPECT_NE(error_of("a,b\ncaf\xE9,x\n").find("--encoding windows-1252"), std::string::npos);
  EXPECT_TRUE(error_of("a,b\n1,\0\n"s).starts_with("in.csv:2: byte 7 is NUL"));
  EXPECT_NE(error_of("t\0e\0x\0t\0,\0b\0\n\0"s).find("--encoding utf-16le"), std::string::npos);
  EXPECT_TRUE(
      error_of("a,b\n1,2\n", {.encoding = "klingon"}).starts_with("in.csv: 'klingon' is no encoding that ICU knows"));
  EXPECT_TRUE(error_of("a,b\n\x81\x00,2\n"s, {.encoding = "shift_jis"})
                  .starts_with("in.csv: byte 5 does not follow the encoding shift_jis"));
}

TEST(Csv, ATextAboveTheLimitIsAnErrorWithItsLine) {
  const std::string huge(10'000'000, 'x');
  EXPECT_TRUE(
      error_of("text,label\nok,a\n" + huge + ",b\n")
          .starts_with("in.csv:3: column 'text' holds a text of more than 1048576 bytes (raise --max-text-bytes"));
  EXPECT_TRUE(error_of("text,label\nok,a\n\"" + huge + "\",b\n")
                  .starts_with("in.csv:3: column 'text' holds a text of more than 1048576 bytes"));
  EXPECT_EQ(parse("text,label\n" + huge + ",b\n", {.max_text_bytes = 20'000'000}).cell(0, 0).size(), huge.size());
  EXPECT_EQ(parse("t,l\nabc,b\n", {.max_text_bytes = 3}).rows(), 1U);
  EXPECT_NE(error_of("t,l\nabcd,b\n", {.max_text_bytes = 3}), "no error");
}

TEST(Csv, AnyBytesGiveRowsOrAnError) {
  const std::vector<std::string> pieces = {"a",  "b", "\"", "\"",       ",",    ",",        ";",   "\n",    "\n",
                                           "\r", " ", "\t", "\xC3\xA9", "\xC3", "\xFF\xFE", "\0"s, "sep=,", "|"};
  Rng rng(23);
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes;
    for (std::uint64_t n = rng.below(24); n > 0; --n) bytes += pieces[rng.below(i % 2 == 0 ? 12 : pieces.size())];
    const auto table = CsvTable::parse(bytes, "in.csv");
    if (!table) {
      EXPECT_TRUE(table.error().message.starts_with("in.csv")) << table.error().message;
      continue;
    }
    ++read;
    const auto lines = lines_of(*table);
    EXPECT_TRUE(std::is_sorted(lines.begin(), lines.end()));
    for (const auto& row : rows_of(*table)) EXPECT_EQ(row.size(), table->columns().size());
  }
  EXPECT_GT(read, 100);
}

TEST(Csv, UnknownColumnListsTheColumnsAndTheNearest) {
  const CsvTable table = parse("message,intent\nx,y\n");
  EXPECT_EQ(table.column("intent").value(), 1U);
  EXPECT_EQ(to_string(table.column("mesage").error()),
            "in.csv: there is no column 'mesage'; the columns are 'message', 'intent' (did you mean 'message'?)");
  EXPECT_EQ(table.column("zzzzzzzz").error().hint, "");
  EXPECT_EQ(to_string(parse("a:b\n1\n").column("label").error()),
            "in.csv: there is no column 'label'; the column is 'a:b' (the line was read as one column, separated by a "
            "comma; give --delimiter if it is another)");
}

TEST(Csv, FilesThatCannotBeRead) {
  const TemporaryDirectory dir;
  EXPECT_EQ(CsvTable::read(dir.path() / "absent.csv").error().code, ErrorCode::kNotFound);
  EXPECT_NE(CsvTable::read(dir.path()).error().message.find("is a directory"), std::string::npos);
  write_file_atomic(dir.path() / "empty.csv", "").value();
  EXPECT_NE(CsvTable::read(dir.path() / "empty.csv").error().message.find("is empty"), std::string::npos);
  write_file_atomic(dir.path() / "good.csv", "a,b\n1,\"2\"\"\"\n").value();
  EXPECT_EQ(rows_of(CsvTable::read(dir.path() / "good.csv").value()), (Rows{{"1", "2\""}}));
}

TEST(CsvWriter, WhatIsWrittenIsReadBack) {
  Rng rng(5);
  const std::vector<std::string> pieces = {"a", "\"", ",", ";", "\n", "\r", "\r\n", " ", "\t", "\xC3\xA9", "=1+1", ""};
  for (const char delimiter : {',', ';', '\t'}) {
    Rows expected;
    std::string bytes;
    const std::vector<std::string_view> header = {"first", "second", "third"};
    append_csv_row(bytes, header, {.delimiter = delimiter});
    for (int row = 0; row < 500; ++row) {
      std::vector<std::string> cells(3);
      for (std::string& cell : cells) {
        for (std::uint64_t n = rng.below(5); n > 0; --n) cell += pieces[rng.below(pieces.size())];
      }
      const std::vector<std::string_view> views(cells.begin(), cells.end());
      append_csv_row(bytes, views, {.delimiter = delimiter});
      expected.push_back(std::move(cells));
    }
    EXPECT_EQ(rows_of(parse(bytes, {.delimiter = delimiter})), expected);
  }
}

TEST(CsvWriter, GuardsFormulasWhereAsked) {
  std::ostringstream out;
  const std::vector<std::string_view> cells = {"=HYPERLINK(\"x\")", "+44 20", "-5.5", "@a", "plain", "-x", "+12"};
  write_csv_row(out, cells, {.guard_formulas = true});
  EXPECT_EQ(out.str(), "\"'=HYPERLINK(\"\"x\"\")\",'+44 20,-5.5,'@a,plain,'-x,+12\n");
  std::string unguarded;
  append_csv_row(unguarded, std::vector<std::string_view>{"=1", ""});
  EXPECT_EQ(unguarded, "=1,\n");
  std::string alone;
  append_csv_row(alone, std::vector<std::string_view>{""});
  EXPECT_EQ(alone, "\"\"\n");
}

}  // namespace
}  // namespace tailor
