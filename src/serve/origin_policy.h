#pragma once
/// Which other sites' pages may use the API from a browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol):
/// the seam where the widget comes in. Without a policy no other site's page may.

#include <memory>
#include <string_view>

#include "serve/http_handler.h"

namespace tailor {

/// Threads: called from any, concurrently; must not block.
class OriginPolicy {
 public:
  virtual ~OriginPolicy() = default;
  virtual bool allows(std::string_view origin) const = 0;  ///< "https://shop.example", as browsers write it
};

/// The origin that the request names and the policy allows; empty: none.
std::string allowed_origin(const OriginPolicy* policy, const HttpHead& head);
/// Whether a browser asks before it sends a request of another site's page.
bool is_preflight(const HttpHead& head);
HttpResponse preflight_answer(std::string_view origin);
/// What lets that page read an answer.
void let_read(HttpHeaders& headers, std::string_view origin);
/// The same responder, whose answers that page may read.
std::shared_ptr<HttpResponder> let_read(std::shared_ptr<HttpResponder> responder, std::string origin);

}  // namespace tailor
