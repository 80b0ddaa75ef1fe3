#include "serve/page.h"

namespace tailor {

std::span<const PageFile> page_files() {
  static constexpr std::string_view kPlain = R"(<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Tailor</title></head>
<body>
<h1>Tailor</h1>
<p>The server runs and answers the API; this build is without the page for trying models. It needs Node.js and the npm
registry while it is built: run <code>make build</code> again where both can be reached.</p>
<p>The models that are served: <a href="/v1/models">/v1/models</a>.</p>
</body>
</html>
)";
  static constexpr PageFile kFiles[] = {{"/", "text/html; charset=utf-8", "no-page-1", kPlain, ""}};
  return kFiles;
}

}  // namespace tailor
