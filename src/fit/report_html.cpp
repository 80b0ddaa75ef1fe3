#include "fit/report_html.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>

#include "core/hash.h"
#include "fit/budget.h"
#include "fit/report_format.h"
#include "fit/report_sections.h"
#include "fit/report_style.h"
#include "text/unicode.h"

namespace tailor {
namespace {

std::string base64_of_hex(const std::string& hex) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto nibble = [](char c) -> unsigned {
    return c <= '9' ? static_cast<unsigned>(c - '0') : static_cast<unsigned>(c - 'a' + 10);
  };
  std::string out;
  unsigned bits = 0, held = 0;
  for (const char c : hex) {
    bits = bits << 4 | nibble(c);
    held += 4;
    if (held < 6) continue;
    held -= 6;
    out += kAlphabet[bits >> held & 63];
    bits &= (1u << held) - 1;
  }
  if (held > 0) out += kAlphabet[bits << (6 - held) & 63];
  while (out.size() % 4 != 0) out += '=';
  return out;
}

struct ReportPart {
  std::string_view id, name;
  std::string (*make)(const ReportInput&);
};

constexpr std::array<ReportPart, 13> kParts = {{
    {"answer", "Answer", section_answer},
    {"table", "Candidates", section_table},
    {"cost", "Cost", section_charts},
    {"classes", "Classes", section_classes},
    {"confusion", "Confusions", section_confusion},
    {"confidence", "Confidence", section_confidence},
    {"scope", "Out of scope", section_out_of_scope},
    {"errors", "Wrong rows", section_errors},
    {"search", "Settings", section_search},
    {"budget", "Budget", section_budget},
    {"advice", "Advice", section_advice},
    {"data", "Data", section_data},
    {"repeat", "Repeat", section_repeat},
}};

}  // namespace

std::string report_html(const ReportInput& input) {
  std::string nav, body;
  for (const ReportPart& part : kParts) {
    const std::string section = part.make(input);
    if (section.empty()) continue;
    nav += fmt::format("<a href=\"#{}\">{}</a>", part.id, part.name);
    body += section;
  }
  const std::string data = input.options.data.filename().string();
  const std::string script(report_script());
  std::string meta = plural(input.label_names.size(), "class", "classes");
  if (const std::size_t rows = test_rows(input); rows > 0) meta += ", " + plural(rows, "test row", "test rows");
  const auto elapsed = input.result.find("elapsed_seconds");
  if (elapsed != input.result.end() && elapsed->is_number())
    meta += ", run in " + human_seconds(elapsed->get<double>());

  std::string out = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>";
  out +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'sha256-" +
      base64_of_hex(sha256_hex(script)) + "'; base-uri 'none'; form-action 'none'\"/>";
  out +=
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"referrer\" "
      "content=\"no-referrer\"/>";
  out += "<title>" + escape_html(data.empty() ? "Tailor report" : data + " – Tailor report") + "</title>\n<style>";
  out += report_css();
  out += "</style></head>\n<body><div class=\"page\"><header class=\"top\"><span class=\"brand\">Tailor report</span>";
  out += "<span dir=\"auto\">" + escape_html(data) + "</span><span class=\"meta\">" + escape_html(meta) +
         "</span></header>\n";
  out += "<nav aria-label=\"Parts of the report\">" + nav + "</nav>\n<main>" + body + "</main>\n";
  const auto versions = input.result.find("versions");
  const std::string version =
      versions != input.result.end() && versions->is_object() ? format_scalar(versions->value("tailor", Json(""))) : "";
  out += "<footer>Made by Tailor" + escape_html(version.empty() ? "" : " " + version) +
         ". This file holds everything it shows and loads nothing.</footer></div>\n<script>" + script +
         "</script></body></html>\n";
  return out;
}

}  // namespace tailor
