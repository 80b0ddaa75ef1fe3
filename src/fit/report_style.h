#pragma once
/// The report's style sheet and its few lines of script, without which it reads as well.

#include <string_view>

namespace tailor {

std::string_view report_css();
/// Sorting tables by a click on a heading, filtering rows by a word, opening what is folded before printing.
/// Holds neither "<" nor "&", so that the file is well-formed as XML too.
std::string_view report_script();

}  // namespace tailor
