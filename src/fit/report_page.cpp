#include "fit/report_page.h"

#include <fmt/format.h>

#include "core/hash.h"
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

}  // namespace

std::string report_page(const ReportPage& page) {
  const std::string script(report_script());
  std::string nav;
  for (const auto& [id, name] : page.parts) nav += fmt::format("<a href=\"#{}\">{}</a>", id, escape_html(name));
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>";
  out +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'sha256-" +
      base64_of_hex(sha256_hex(script)) + "'; base-uri 'none'; form-action 'none'\"/>";
  out +=
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"referrer\" "
      "content=\"no-referrer\"/>";
  out += "<title>" + escape_html(page.data.empty() ? "Tailor report" : page.data + " – Tailor report") +
         "</title>\n<style>";
  out += report_css();
  out += "</style></head>\n<body><div class=\"page\"><header class=\"top\"><span class=\"brand\">Tailor report</span>";
  out += "<span dir=\"auto\">" + escape_html(page.data) + "</span><span class=\"meta\">" + escape_html(page.meta) +
         "</span></header>\n";
  out += "<nav aria-label=\"Parts of the report\">" + nav + "</nav>\n<main>" + page.body + "</main>\n";
  out += "<footer>Made by Tailor" + escape_html(page.version.empty() ? "" : " " + page.version) +
         ". This file holds everything it shows and loads nothing.</footer></div>\n<script>" + script +
         "</script></body></html>\n";
  return out;
}

}  // namespace tailor
