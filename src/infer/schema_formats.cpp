#include "infer/schema_formats.h"

namespace tailor {
namespace {

struct Format {
  std::string_view name, pattern;
};

// The language joins literals, but no constants, while it compiles.
#define TAILOR_DATE \
  "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define TAILOR_TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define TAILOR_BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define TAILOR_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
constexpr Format kFormats[] = {
    {"date", "^" TAILOR_DATE "$"},
    {"time", "^" TAILOR_TIME "$"},
    {"date-time", "^" TAILOR_DATE "T" TAILOR_TIME "$"},
    {"duration",
     "^P([0-9]{1,9}W|([0-9]{1,9}Y([0-9]{1,9}M([0-9]{1,9}D)?)?|[0-9]{1,9}M([0-9]{1,9}D)?|[0-9]{1,9}D)(T[0-9]{1,9}(H([0-"
     "9]{1,9}M([0-9]{1,9}S)?)?|M([0-9]{1,9}S)?|S))?|T[0-9]{1,9}(H([0-9]{1,9}M([0-9]{1,9}S)?)?|M([0-9]{1,9}S)?|S))$"},
    {"email", "^[A-Za-z0-9_+-]{1,30}(\\.[A-Za-z0-9_+-]{1,16}){0,2}@" TAILOR_LABEL "(\\." TAILOR_LABEL "){1,2}$"},
    {"hostname", "^" TAILOR_LABEL "(\\." TAILOR_LABEL "){0,2}$"},
    {"ipv4", "^(" TAILOR_BYTE "\\.){3}" TAILOR_BYTE "$"},
    {"ipv6", "^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$"},
    {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
};
#undef TAILOR_DATE
#undef TAILOR_TIME
#undef TAILOR_BYTE
#undef TAILOR_LABEL

}  // namespace

std::optional<std::string_view> format_pattern(std::string_view format) {
  for (const Format& known : kFormats) {
    if (known.name == format) return known.pattern;
  }
  return std::nullopt;
}

}  // namespace tailor
