#pragma once
/// The page at /: files of web/, built by the set-up and compiled into the program.

#include <span>
#include <string_view>

#include "serve/api_context.h"

namespace tailor {

/// One file, as it is and compressed with gzip. Everything lives as long as the program.
struct PageFile {
  std::string_view path;  // "/" or "/assets/index-Ab12Cd34.js": the latter's name changes with its content
  std::string_view type;  // Content-Type
  std::string_view tag;   // a hash of `body`, hexadecimal
  std::string_view body;
  std::string_view gzip;  // empty: only `body` is sent
};

/// "/" is always there. Without web/ built (no Node.js, no npm registry) it is a plain page that says so, from
/// no_page/.
std::span<const PageFile> page_files();

/// The answer to a GET or HEAD of `head.path`: 200, 304 where the client has it already, or 404 as the API tells it.
HttpResponse page_response(const HttpHead& head, std::span<const PageFile> files);

/// "/" and "/assets/{name}". No key is asked for: the page holds nothing secret, and asks for the key itself.
void handle_page(const ApiServices& services, const ApiCallPtr& call);

}  // namespace tailor
