#pragma once
/// The page around a report: one file, nothing fetched, nothing run but our own script (report_style.h).

#include <string>
#include <utility>
#include <vector>

namespace tailor {

struct ReportPage {
  std::string data;                                        // what the report is of, for its title and head
  std::string meta;                                        // a few figures beside it
  std::string version;                                     // of Tailor; may be empty
  std::vector<std::pair<std::string, std::string>> parts;  // id and name, for the navigation
  std::string body;                                        // sections, as HTML
};

/// A whole file, well-formed as XML. `body` is taken as it is, all else is escaped.
std::string report_page(const ReportPage& page);

}  // namespace tailor
