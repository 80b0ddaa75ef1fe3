#include "fit/report_sections.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/unicode.h"

namespace tailor {

namespace {

/// A percent sign stays with its number.
std::string prose(std::string_view text) {
  std::string out = escape_html(text);
  for (std::size_t at = out.find(" %"); at != std::string::npos; at = out.find(" %", at)) out.replace(at, 1, "\u00A0");
  return out;
}

}  // namespace

std::string open_section(std::string_view id, std::string_view title, std::string_view intro) {
  std::string out = fmt::format(R"(<section id="{}"><h2>{}</h2>)", id, escape_html(title));
  if (!intro.empty()) out += paragraph(intro, "intro");
  return out;
}

std::string paragraph(std::string_view text, std::string_view css_class) {
  if (css_class.empty()) return "<p>" + prose(text) + "</p>";
  return fmt::format(R"(<p class="{}">{}</p>)", css_class, prose(text));
}

std::string bullet_list(const std::vector<std::string>& items) {
  if (items.empty()) return "";
  std::string out = R"(<ul class="plain">)";
  for (const auto& item : items) out += "<li>" + prose(item) + "</li>";
  return out + "</ul>";
}

std::string fact_list(const std::vector<std::pair<std::string, std::string>>& facts) {
  if (facts.empty()) return "";
  std::string out = R"(<dl class="facts">)";
  for (const auto& [name, value] : facts)
    out += "<dt>" + escape_html(name) + "</dt><dd>" + escape_html(value) + "</dd>";
  return out + "</dl>";
}

std::string meter(double share, std::string_view css_class) {
  return fmt::format(R"(<span class="meter{}{}" aria-hidden="true"><i style="width:{:.1f}%"></i></span>)",
                     css_class.empty() ? "" : " ", css_class, 100 * std::clamp(share, 0.0, 1.0));
}

std::string open_table(std::string_view label, const std::vector<std::string_view>& headings, bool tall, bool sortable,
                       std::string_view id) {
  std::string out = fmt::format(
      R"(<div class="scroll{}" role="region" aria-label="{}" tabindex="0"><table{}{}><caption class="hidden">{}</caption><thead><tr>)",
      tall ? " tall" : "", escape_html(label), sortable ? R"( class="sortable")" : "",
      id.empty() ? "" : fmt::format(R"( id="{}")", id), escape_html(label));
  for (std::string_view heading : headings) {
    const bool numeric = heading.starts_with('#');
    if (numeric) heading.remove_prefix(1);
    out += fmt::format(R"(<th scope="col"{}>{}</th>)", numeric ? R"( class="num")" : "", escape_html(heading));
  }
  return out + "</tr></thead><tbody>";
}

std::string number_cell(double sort, std::string_view text, std::string_view extra_html) {
  return fmt::format(R"(<td class="num" data-v="{:.9g}">{}{}</td>)", sort, escape_html(text), extra_html);
}

std::string text_cell(std::string_view text, std::string_view css_class) {
  if (css_class.empty()) return R"(<td dir="auto">)" + escape_html(text) + "</td>";
  return fmt::format(R"(<td class="{}" dir="auto">{}</td>)", css_class, escape_html(text));
}

std::string label_html(std::string_view label) {
  std::string out;
  for (const char c : escape_html(label)) {
    out += c;
    if (c == '_' || c == '-' || c == '/' || c == '.') out += "<wbr/>";
  }
  return out;
}

std::string label_cell(std::string_view label) {
  return R"(<td class="label" dir="auto">)" + label_html(label) + "</td>";
}

std::string figure(std::string_view svg_html, std::string_view caption) {
  return fmt::format("<figure>{}<figcaption>{}</figcaption></figure>", svg_html, escape_html(caption));
}

}  // namespace tailor
