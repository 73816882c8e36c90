# One image for every federate: the role is the command.
FROM python:3.11-slim

RUN useradd --create-home voltier
WORKDIR /opt/voltier
COPY . .
RUN pip install --no-cache-dir .

ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_CACHE_DIR=/tmp/numba
USER voltier
WORKDIR /home/voltier
ENTRYPOINT ["voltier"]
CMD ["--help"]
