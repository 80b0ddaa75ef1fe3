#include "serve/page.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {
namespace {

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

/// Calls `use` with each element of a comma-separated field, through all fields of that name, until it says true.
template <typename Use>
bool any_element(const HttpHeaders& headers, std::string_view name, Use use) {
  for (const HttpHeader& field : headers) {
    if (!same_name(field.name, name)) continue;
    for (std::string_view rest = field.value; !rest.empty();) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      if (use(trim(rest.substr(0, comma)))) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

/// "gzip" or "*", unless with a weight of zero.
bool takes_gzip(const HttpHeaders& headers) {
  return any_element(headers, "Accept-Encoding", [](std::string_view element) {
    const std::size_t semicolon = std::min(element.find(';'), element.size());
    const std::string_view coding = trim(element.substr(0, semicolon));
    if (!same_name(coding, "gzip") && coding != "*") return false;
    const std::string_view weight = trim(element.substr(std::min(semicolon + 1, element.size())));
    return !(weight.starts_with("q=0") || weight.starts_with("Q=0")) ||
           weight.find_first_of("123456789") != std::string_view::npos;
  });
}

bool has_already(const HttpHeaders& headers, std::string_view tag) {
  return any_element(headers, "If-None-Match", [tag](std::string_view element) {
    if (element.starts_with("W/")) element.remove_prefix(2);
    return element == "*" || element == tag;
  });
}

}  // namespace

HttpResponse page_response(const HttpHead& head, std::span<const PageFile> files) {
  const auto file = std::find_if(files.begin(), files.end(), [&](const PageFile& f) { return f.path == head.path; });
  if (file == files.end())
    return error_response({404, "invalid_request_error", "unknown_url", "the page has no such file", ""});
  const bool gzip = !file->gzip.empty() && takes_gzip(head.headers);
  const std::string tag = fmt::format("\"{}{}\"", file->tag, gzip ? "-gzip" : "");
  HttpResponse out;
  out.headers.add("ETag", tag);
  // A new build has new names in /assets/; "/" names them, so it is asked for each time.
  out.headers.add("Cache-Control", file->path == "/" ? "no-cache" : "public, max-age=31536000, immutable");
  if (!file->gzip.empty()) out.headers.add("Vary", "Accept-Encoding");
  out.headers.add(
      "Content-Security-Policy",
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri "
      "'none'; "
      "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'");
  out.headers.add("Referrer-Policy", "no-referrer");
  out.headers.add("Permissions-Policy",
                  "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()");
  out.headers.add("Cross-Origin-Opener-Policy", "same-origin");
  out.headers.add("Cross-Origin-Resource-Policy", "same-origin");
  out.headers.add("X-Content-Type-Options", "nosniff");
  out.headers.add("X-Frame-Options", "DENY");
  if (has_already(head.headers, tag)) {
    out.status = 304;
    return out;
  }
  out.headers.add("Content-Type", std::string(file->type));
  if (gzip) out.headers.add("Content-Encoding", "gzip");
  out.body = gzip ? file->gzip : file->body;
  return out;
}

void handle_page(const ApiServices& /*services*/, const ApiCallPtr& call) {
  HttpResponse response = page_response(call->request.head, page_files());
  response.headers.add("X-Request-Id", call->id);
  call->responder->send(std::move(response));
}

}  // namespace tailor
