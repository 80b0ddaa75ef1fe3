#include "fit/report_page.h"

#include <fmt/format.h>

#include "core/hash.h"
#include "fit/report_style.h"
#include "text/unicode.h"

namespace tailor {

std::string report_page(const ReportPage& page) {
  const std::string script(report_script());
  std::string nav;
  for (const auto& [id, name] : page.parts) nav += fmt::format("<a href=\"#{}\">{}</a>", id, escape_html(name));
  Sha256 hash;
  hash.add(script);
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>";
  out +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'sha256-" +
      to_base64(hash.bytes()) + "'; base-uri 'none'; form-action 'none'\"/>";
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
