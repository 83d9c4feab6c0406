// Reads quadratic.npz and quadratic.maml-3.npz of `refmaml golden DIR` with the C++
// standard library alone, computes the meta-gradient of MAML on quadratics from the inputs,
// and compares every intermediate with the file:
//
//     g++ -std=c++17 -O2 read_golden.cpp -o read_golden && ./read_golden DIR
//
// A zip without compression holds its files one after another, and at its end a table with
// the position of each. A .npy file is a line of text, then the numbers. This program is
// for little-endian machines, as the numbers are little-endian.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

struct Array { std::vector<size_t> shape; std::vector<double> data; };

[[noreturn]] void fail(const std::string& what) { std::fprintf(stderr, "%s\n", what.c_str()); std::exit(2); }

template <class T> T at(const std::string& bytes, size_t place) {
    if (place + sizeof(T) > bytes.size()) fail("the file ends too early");
    T value;
    std::memcpy(&value, bytes.data() + place, sizeof(T));
    return value;
}

Array read_npy(const std::string& bytes) {
    if (bytes.compare(0, 6, "\x93NUMPY") != 0) fail("no .npy");
    size_t start = 10 + at<uint16_t>(bytes, 8);                     // version 1.0: header length at byte 8
    std::string header = bytes.substr(10, start - 10);              // {'descr': '<f8', 'fortran_order': False, 'shape': (3, 7), }
    Array a;
    if (header.find("'<f8'") == std::string::npos) return a;        // grad_float32 is not used
    if (header.find("False") == std::string::npos) fail("not in C order");
    size_t count = 1;
    const char* c = header.c_str() + header.find("'shape': (") + 10;
    while (*c != ')') {
        char* end;
        a.shape.push_back(std::strtoul(c, &end, 10));
        count *= a.shape.back();
        for (c = end; *c == ',' || *c == ' ';) ++c;
    }
    if (start + 8 * count != bytes.size()) fail("the shape does not fit the bytes");
    a.data.resize(count);
    std::memcpy(a.data.data(), bytes.data() + start, 8 * count);
    return a;
}

std::map<std::string, Array> read_npz(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("cannot open " + path);
    std::string z((std::istreambuf_iterator<char>(file)), {});
    if (z.size() < 22) fail("no zip");
    size_t end = z.size() - 22;                                     // the end record; there is no comment
    if (at<uint32_t>(z, end) != 0x06054b50) fail("no zip");
    size_t entry = at<uint32_t>(z, end + 16);                       // position of the table
    std::map<std::string, Array> arrays;
    for (int n = at<uint16_t>(z, end + 10); n > 0; --n) {
        if (at<uint16_t>(z, entry + 10) != 0) fail("a compressed member");
        size_t size = at<uint32_t>(z, entry + 24), name = at<uint16_t>(z, entry + 28);
        size_t local = at<uint32_t>(z, entry + 42);
        size_t start = local + 30 + at<uint16_t>(z, local + 26) + at<uint16_t>(z, local + 28);
        arrays[z.substr(entry + 46, name - 4)] = read_npy(z.substr(start, size));       // without ".npy"
        entry += 46 + name + at<uint16_t>(z, entry + 30) + at<uint16_t>(z, entry + 32);
    }
    return arrays;
}

double worst = 0;

void compare(const char* name, const std::vector<double>& value, const double* reference) {
    double error = 0, size = 0;
    for (size_t i = 0; i < value.size(); ++i) {
        error = std::fmax(error, std::fabs(value[i] - reference[i]));
        size = std::fmax(size, std::fabs(reference[i]));
    }
    worst = std::fmax(worst, error / size);
    std::printf("%-12s %.1e\n", name, error / size);
}

int main(int argc, char** argv) {
    if (argc != 2) fail("usage: read_golden DIR");
    std::string dir = argv[1];
    auto in = read_npz(dir + "/quadratic.npz"), out = read_npz(dir + "/quadratic.maml-3.npz");
    const auto &A = in["x_support"], &c = in["y_support"];
    const auto &B = in["x_query"], &d = in["y_query"], &rates = out["A"];
    size_t T = A.shape.at(0), P = A.shape.at(1), K = rates.shape.at(0);
    std::vector<std::vector<double>> phi(K + 1, std::vector<double>(T * P)), lam = phi;
    std::vector<std::vector<double>> grads(K, phi[0]), hvp = grads;
    auto times = [&](const Array& M, size_t t, size_t i, const std::vector<double>& v) {       // (M_t v_t)_i
        double sum = 0;
        for (size_t j = 0; j < P; ++j) sum += M.data[(t * P + i) * P + j] * v[t * P + j];
        return sum;
    };
    auto minus = [&](std::vector<double> v, const Array& centre) {
        for (size_t i = 0; i < T * P; ++i) v[i] -= centre.data[i];
        return v;
    };
    std::vector<double> step(T * P), gradient(P, 0.0);
    for (size_t t = 0; t < T; ++t)
        for (size_t i = 0; i < P; ++i) phi[0][t * P + i] = in["theta"].data[i];
    for (size_t k = 0; k < K; ++k)                                  // phi_{k+1} = phi_k - A_k * grad f(phi_k)
        for (size_t t = 0; t < T; ++t)
            for (size_t i = 0; i < P; ++i) {
                grads[k][t * P + i] = times(A, t, i, minus(phi[k], c));
                phi[k + 1][t * P + i] = phi[k][t * P + i] - rates.data[k * P + i] * grads[k][t * P + i];
            }
    for (size_t t = 0; t < T; ++t)                                  // lam_K = grad g(phi_K)
        for (size_t i = 0; i < P; ++i) lam[K][t * P + i] = times(B, t, i, minus(phi[K], d));
    for (size_t k = K; k-- > 0;) {                                  // lam_k = lam_{k+1} - H (A_k * lam_{k+1})
        for (size_t t = 0; t < T; ++t)
            for (size_t i = 0; i < P; ++i) step[t * P + i] = rates.data[k * P + i] * lam[k + 1][t * P + i];
        for (size_t t = 0; t < T; ++t)
            for (size_t i = 0; i < P; ++i) {
                hvp[k][t * P + i] = times(A, t, i, step);
                lam[k][t * P + i] = lam[k + 1][t * P + i] - hvp[k][t * P + i];
            }
    }
    for (size_t t = 0; t < T; ++t)
        for (size_t i = 0; i < P; ++i) gradient[i] += lam[0][t * P + i] / T;
    for (size_t k = 0; k < K; ++k) compare("inner_grad", grads[k], &out["inner_grad"].data[k * T * P]);
    for (size_t k = 0; k <= K; ++k) compare("phi", phi[k], &out["phi"].data[k * T * P]);
    for (size_t k = 0; k < K; ++k) compare("hvp", hvp[k], &out["hvp"].data[k * T * P]);
    for (size_t k = 0; k <= K; ++k) compare("lam", lam[k], &out["lam"].data[k * T * P]);
    compare("grad", gradient, out["grad"].data.data());
    // The manifest's "float64" of this method.
    double allowed = 6 * std::ldexp(1.0, -52) * std::sqrt(3.0 * (K + 1) * P * P);
    std::printf("%s: the largest error is %.1e, %.1e is allowed\n",
                worst <= allowed ? "right" : "WRONG", worst, allowed);
    return worst <= allowed ? 0 : 1;
}
