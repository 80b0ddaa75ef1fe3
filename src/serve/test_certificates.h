#pragma once
/// Certificates made for a test.

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

namespace tailor::test {

using Key = std::shared_ptr<EVP_PKEY>;
using Certificate = std::shared_ptr<X509>;

struct Identity {
  Key key;
  Certificate certificate;
};

/// Signed by `issuer`, or by itself.
inline Identity make_identity(const std::string& name, const Identity* issuer = nullptr) {
  static int serial = 0;
  Identity made{Key(EVP_EC_gen("P-256"), EVP_PKEY_free), Certificate(X509_new(), X509_free)};
  X509* certificate = made.certificate.get();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, made.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  const Identity& by = issuer != nullptr ? *issuer : made;
  X509_set_issuer_name(certificate, X509_get_subject_name(by.certificate.get()));
  if (issuer == nullptr) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* is_ca = X509V3_EXT_conf_nid(nullptr, &context, NID_basic_constraints, "critical,CA:TRUE");
    X509_add_ext(certificate, is_ca, -1);
    X509_EXTENSION_free(is_ca);
  }
  if (X509_sign(certificate, by.key.get(), EVP_sha256()) == 0) throw std::runtime_error("X509_sign failed");
  return made;
}

template <typename Write>
void write_pem(const std::filesystem::path& file, unsigned mode, Write write) {
  std::FILE* out = std::fopen(file.c_str(), "w");
  if (out == nullptr || !write(out)) throw std::runtime_error("cannot write " + file.string());
  std::fclose(out);
  chmod(file.c_str(), mode);
}

inline void write_certificate(const std::filesystem::path& file, const Identity& identity) {
  write_pem(file, 0644, [&](std::FILE* out) { return PEM_write_X509(out, identity.certificate.get()) == 1; });
}

/// With a `password` the key is encrypted.
inline void write_key(const std::filesystem::path& file, const Identity& identity, const char* password = nullptr) {
  write_pem(file, 0600, [&](std::FILE* out) {
    return PEM_write_PKCS8PrivateKey(out, identity.key.get(), password != nullptr ? EVP_aes_128_cbc() : nullptr,
                                     nullptr, 0, nullptr, const_cast<char*>(password)) == 1;
  });
}

}  // namespace tailor::test
