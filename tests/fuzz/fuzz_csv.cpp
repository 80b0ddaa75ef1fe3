#include "data/csv.h"
#include "fuzz.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {"message,intent\nhello,greeting\n\"a, b\",other\n",
          "\xEF\xBB\xBFtext;label\r\n\"two\r\nlines\";\"a \"\"quoted\"\" one\"\r\n\r\nx;y\r\n", "sep=|\na|b|c\n1|2|3\n",
          "a\tb\n\t\n\xC3\xA4\t\xF0\x9F\x98\x80\n",
          std::string("\xFF\xFE"
                      "a\0,\0b\0\n\0c\0,\0d\0",
                      16)};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using tailor::CsvTable;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const char* encoding : {"", "windows-1252"}) {
    const auto table = CsvTable::parse(bytes, "fuzz.csv", {.encoding = encoding, .max_text_bytes = 4096});
    if (!table) continue;
    std::size_t total = 0;
    for (std::size_t r = 0; r < table->rows(); ++r) {
      for (std::size_t c = 0; c < table->columns().size(); ++c) total += table->cell(r, c).size();
    }
    if (total > 4 * size + 64) __builtin_trap();  // cells point into the text or a copy of it
  }
  return 0;
}
